"""What a run was begun with is told again by a later fldet, whose configs have more options."""

import pytest

from fldet.config.load import load_config
from fldet.runs.run import YOUNGER, digest

SHAPES = "shapes/retinanet_r18_shapes.py"
# Of 0.2.0. An option that comes after these goes into YOUNGER, with the value that changes nothing.
OPTIONS = """
amp augment channels_last compile custom_hooks custom_imports default_hooks default_scope env_cfg
fold_batch_norms gradient_checkpointing load_from log_level log_processor oversample randomness
resume skip_nonfinite visualizer
"""


def test_options_are_those_of_old_runs_or_known_as_younger():
    found = load_config("_base_/default_runtime.py").to_dict().keys()
    assert found - YOUNGER.keys() == set(OPTIONS.split())
    assert found >= YOUNGER.keys()


@pytest.mark.parametrize("key", YOUNGER)
def test_a_younger_option_counts_where_it_is_used(key):
    cfg = load_config(SHAPES)
    assert cfg[key] == YOUNGER[key]
    before = digest(cfg)
    cfg.pop(key)
    assert digest(cfg) == before  # as in a run of 0.2.0
    cfg[key] = "another"
    assert digest(cfg) != before
