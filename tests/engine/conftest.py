"""A trained model that several files of tests use."""

import pytest

from fldet.config import load_config
from fldet.engine.train import train


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, write_tiny_config):
    """Config and work dir of four iterations; read-only."""
    folder = tmp_path_factory.mktemp("tiny_run")
    changes = ["model.bbox_head.prior_prob=0.2", "default_hooks.logger.interval=2"]
    cfg = load_config(write_tiny_config(folder), changes)
    return cfg, train(cfg, work_dir=folder / "run", device="cpu").work_dir
