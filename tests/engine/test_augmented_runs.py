"""Runs with ``augment``, ``oversample``, ``tiles``: resumed exactly, with images missing."""

import importlib.util
import logging
import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook

import fldet
from fldet.config.load import load_config
from fldet.engine.train import train
from fldet.errors import StoppedError

ROOT = Path(fldet.__file__).parent.parent
RESIZE = {"type": "Resize", "scale": (64, 48), "keep_ratio": True}
LINES = {
    "medium": {"augment": "medium"},
    "small and oversample": {"augment": "small", "oversample": 0.9},
    "all three": {
        "augment": "small",
        "oversample": 0.9,
        "+tiles": {"size": 48, "overlap": 0.25},
    },
}


def config(path, lines, workers=0):
    cfg = load_config(
        path,
        {
            "train_cfg.max_iters": 6,
            "train_cfg.val_interval": 6,
            "default_hooks.checkpoint.interval": 2,
            "default_hooks.logger.interval": 1,
            "train_dataloader.num_workers": workers,
            "train_dataloader.persistent_workers": workers > 0,
            **lines,
        },
    )
    steps = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [*steps[:2], RESIZE, *steps[2:]]
    return cfg


def load_tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "kill_and_resume.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


class StopHook(Hook):
    """Asks the run to stop after its third iteration."""

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_a_run_is_resumed_exactly_with_any_number_of_loader_processes(
    tiny_config, tmp_path, with_hook, lines
):
    train(config(tiny_config, lines), work_dir=tmp_path / "reference", device="cpu")
    with_hook(StopHook())
    cfg = config(tiny_config, lines, workers=2)
    with pytest.raises(StoppedError, match=r"saved iter_3\.pth"):
        train(cfg, work_dir=tmp_path / "killed", device="cpu")
    with_hook()
    saved = load_config(tmp_path / "killed" / "tiny.py")
    assert (saved.augment, saved.oversample, saved.get("tiles")) == ("none", None, None)
    assert bool(saved.train_dataloader.dataset.get("dataset", {}).get("tiles")) == (
        "+tiles" in lines
    )
    assert train(saved, work_dir=tmp_path / "killed", resume=True, device="cpu").iterations == 6
    assert load_tool().differences(tmp_path, 6) == []


def test_what_is_said_of_the_images(tiny_config, tmp_path, caplog, monkeypatch):
    """Eleven places for six images, one of which is missing and is left out once."""
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    cfg = config(tiny_config, LINES["small and oversample"])
    root = tmp_path / "data"
    root.mkdir()
    for part in ("annotations", "val2017"):
        (root / part).symlink_to(Path(cfg.data_root, part))
    (root / "train2017").mkdir()
    for image in Path(cfg.data_root, "train2017").iterdir():
        if image.name != "3.png":
            (root / "train2017" / image.name).symlink_to(image)
    cfg.data_root = str(root)
    train(cfg, work_dir=tmp_path / "run", device="cpu")
    text = "\n".join(caplog.messages)
    assert "6 iterations of 2 images, 2 times each of 6 images on average, listed 11 times" in text
    assert "1 of 6 image files of" in text
    said = [one for one in caplog.records if "3.png: No such file" in one.getMessage()]
    assert len({id(one) for one in said}) == 1  # a record may reach caplog by two loggers
