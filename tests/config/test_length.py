import copy
import math

import pytest
from mmengine.config import Config

from fldet.config.length import set_epochs, set_length
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.engine.train import train
from fldet.errors import UsageError


def schedule(**more):
    return Config(
        {
            "train_cfg": {"max_iters": 1000, "val_interval": 250, **more},
            "param_scheduler": [
                {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 50},
                {"type": "MultiStepLR", "by_epoch": False, "milestones": [600, 800], "end": 1000},
                {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 50, "end": 1000},
                {"type": "StepLR", "by_epoch": True, "step_size": 3},
            ],
            "default_hooks": {"checkpoint": {"interval": 500}},
        }
    )


def test_the_schedule_follows_and_the_warm_up_stays():
    cfg = schedule(val_begin=500, dynamic_intervals=[(1, 500), (600, 100)])
    set_length(cfg, 2000)
    assert cfg.train_cfg == {
        "max_iters": 2000,
        "val_interval": 500,
        "val_begin": 1000,
        "dynamic_intervals": [(1, 1000), (1199, 200)],
    }
    warm_up, steps, cosine, by_epoch = cfg.param_scheduler
    assert warm_up["end"] == 50
    assert (steps["milestones"], steps["end"]) == ([1200, 1600], 2000)
    assert (cosine["begin"], cosine["end"]) == (50, 2000)
    assert by_epoch["step_size"] == 3
    assert cfg.default_hooks.checkpoint.interval == 1000


def test_the_warm_up_of_a_short_training_is_a_quarter_of_it_at_most():
    cfg = schedule()
    set_length(cfg, 100)
    warm_up, steps, cosine, _ = cfg.param_scheduler
    assert (warm_up["end"], cosine["begin"], cosine["end"]) == (25, 25, 100)
    assert steps["milestones"] == [60, 80]
    assert cfg.train_cfg["val_interval"] == 25


def test_what_never_comes_or_has_no_end_stays():
    cfg = schedule()
    cfg.param_scheduler = {"type": "MultiStepLR", "by_epoch": False, "end": math.inf, "begin": 0}
    cfg.default_hooks.checkpoint.interval = -1
    set_length(cfg, 10)
    assert (cfg.param_scheduler["end"], cfg.param_scheduler["begin"]) == (math.inf, 0)
    assert cfg.default_hooks.checkpoint.interval == -1


def test_the_same_length_changes_nothing():
    cfg = schedule()
    before = copy.deepcopy(cfg.to_dict())
    set_length(cfg, 1000)
    assert cfg.to_dict() == before


def test_epochs_are_counted_in_the_images_of_all_processes(tiny_config):
    def length(epochs, **more):
        cfg = prepare_config(load_config(tiny_config), phases=("train",))
        set_epochs(cfg, epochs, **{"images": 2, "processes": 1} | more)
        return cfg.train_cfg.max_iters

    images = 6
    assert length(1) == math.ceil(images / 2)
    assert length(4, images=1) == 4 * images
    assert length(4, images=1, processes=2) == 4 * math.ceil(images / 2)
    assert length(0.001) == 1


def test_a_shorter_training_from_python_and_what_cannot_be_said_together(tiny_config, tmp_path):
    cfg = load_config(tiny_config)
    result = train(cfg, work_dir=tmp_path / "run", device="cpu", max_iters=2)
    assert result.iterations == 2
    assert result.best_ap is not None  # it was validated at its end
    resolved = load_config(tmp_path / "run" / "tiny.py")
    assert (resolved.train_cfg.max_iters, resolved.train_cfg.val_interval) == (2, 2)
    with pytest.raises(UsageError, match="--epochs and --max-iters"):
        train(cfg, work_dir=tmp_path / "a", device="cpu", max_iters=2, epochs=1)
    with pytest.raises(UsageError, match="--batch-size auto"):
        train(cfg, work_dir=tmp_path / "a", device="cpu", epochs=1, batch_size="auto")
