"""Settings that stay, and what a budget is worth."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from fldet.compare.plan import (
    Pace,
    Schedule,
    Settings,
    begin,
    schedule_of,
    write_config,
)
from fldet.config.load import load_config
from fldet.errors import ConfigError, DataError, UsageError


@pytest.mark.parametrize(
    ("minutes", "pace", "expected"),
    [
        # 95 s, in which 7 of 8 validations take 7 s
        (100 / 60, Pace(0.5, 1.0), Schedule(176, 22, 100 / 60)),
        # a quarter of 95 s is worth two validations of 10 s, one of them at the end
        (100 / 60, Pace(1.0, 10.0), Schedule(85, 43, 100 / 60)),
        # one validation at the end, and an iteration at least
        (100 / 60, Pace(100.0, 100.0), Schedule(1, 1, 100 / 60)),
        (100 / 60, Pace(1.0, 0.0), Schedule(95, 95, 100 / 60)),
    ],
    ids=["8 validations", "2 validations", "too long", "no time known"],
)
def test_minutes_are_worth_iterations(minutes, pace, expected):
    assert schedule_of(Settings(minutes=minutes), pace) == expected


def test_iterations_are_the_budget_where_they_are_given():
    assert schedule_of(Settings(iterations=100), Pace(9.0, 9.0)) == Schedule(100, 50)
    assert schedule_of(Settings(iterations=3), None) == Schedule(3, 3)
    assert schedule_of(Settings(iterations=1000), None) == Schedule(1000, 125)


@pytest.mark.parametrize(("iterations", "warm_up"), [(1, 0), (2, 0), (8, 2), (400, 50)])
def test_the_learning_rate_rises_and_falls_to_zero(iterations, warm_up, tiny_config, tmp_path):
    path = write_config(tiny_config, Schedule(iterations, 2, 1.5), tmp_path / "one.py")
    cfg = load_config(path)
    assert cfg.train_cfg.to_dict() == {
        "type": "IterBasedTrainLoop",
        "max_iters": iterations,
        "val_interval": 2,
    }
    assert cfg.max_time == 90
    assert cfg.default_hooks.checkpoint.interval == 2
    assert cfg.log_processor.window_size == cfg.default_hooks.logger.interval
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    phases = [
        PARAM_SCHEDULERS.build(one.to_dict(), default_args={"optimizer": optimizer})
        for one in cfg.param_scheduler
    ]
    for iteration in range(iterations):
        rate = optimizer.param_groups[0]["lr"]
        share = (iteration - warm_up) / (iterations - warm_up)
        expected = (1 + math.cos(math.pi * share)) / 2
        if iteration < warm_up:
            expected = 0.1 + 0.9 * iteration / (warm_up - 1)
        assert rate == pytest.approx(expected), iteration
        optimizer.step()
        for phase in phases:
            phase.step()


def config_like(tiny_config, name, text=""):
    path = tiny_config.with_name(f"{name}.py")
    path.write_text(f"_base_ = './{tiny_config.name}'\n{text}")
    return str(path)


@pytest.fixture
def work_dir(tmp_path):
    return tmp_path / "compared"


def test_contestants_may_be_added_and_all_else_stays(work_dir, tmp_path, tiny_config):
    one, two = (config_like(tiny_config, name) for name in ("one", "two"))
    first, _ = begin(Settings(configs=(one,), iterations=4), work_dir)
    assert first.models == ()
    second, _ = begin(Settings(configs=(two,), iterations=4), work_dir)
    assert second.configs == (one, two)
    assert begin(Settings(configs=(one,), iterations=4), work_dir)[0] == second
    with pytest.raises(UsageError, match="another budget: 4 iterations, not 10 min"):
        begin(Settings(configs=(one,)), work_dir)
    with pytest.raises(UsageError, match="another device: auto, not cpu"):
        begin(Settings(configs=(one,), iterations=4, device="cpu"), work_dir)


def test_models_may_be_added_to_a_data_set_and_the_data_set_left_out(
    work_dir, tmp_path, tiny_config, tiny_coco
):
    begun = Settings(tiny_coco, models=("retinanet",), iterations=4)
    begin(begun, work_dir)
    one = config_like(tiny_config, "one")
    found, drafts = begin(Settings(configs=(one,), iterations=4), work_dir)
    assert list(drafts) == ["retinanet", "one"]
    assert found.data == tiny_coco.resolve()
    assert (found.models, found.configs) == (("retinanet",), (one,))
    with pytest.raises(UsageError, match="another data"):
        begin(Settings(tmp_path, iterations=4), work_dir)
    with pytest.raises(UsageError, match="another size"):
        begin(Settings(tiny_coco, iterations=4, size=(64, 64)), work_dir)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (Settings(), UsageError, "nothing to compare"),
        (Settings(configs=("x.py",), minutes=0), UsageError, "0 minutes are no budget"),
        (Settings(configs=("x.py",), minutes=float("nan")), UsageError, "no budget"),
        (Settings(configs=("x.py",), iterations=0), UsageError, "0 iterations are no budget"),
        (Settings(configs=("no_such.py",)), ConfigError, "'no_such.py' does not exist"),
        (Settings(configs=("x.py",), size=(640, 1)), UsageError, "images of 640x1 are too small"),
        (Settings(configs=("x.py",), device="banana"), UsageError, "unknown device 'banana'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_are_refused(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        begin(settings, tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_contestants_of_one_name_are_refused(tmp_path, tiny_config):
    name = config_like(tiny_config, "retinanet")
    with pytest.raises(UsageError, match="two contestants are called retinanet"):
        begin(Settings(tmp_path, models=("retinanet",), configs=(name,)), tmp_path / "w")


def test_contestants_that_are_tested_on_other_images_are_refused(work_dir, tmp_path, tiny_config):
    """And what the work dir held stays as it was."""
    one, other = config_like(tiny_config, "one"), tmp_path / "other"
    truth = "ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')"
    two = config_like(tiny_config, "two", f"val_dataloader = dict(dataset=dict({truth}))\n")
    settings, drafts = begin(Settings(configs=(one,), iterations=4), work_dir)
    assert list(drafts) == ["one"]
    with pytest.raises(UsageError, match=r"one is tested on .*val2017.json, two on .*train2017"):
        begin(Settings(configs=(two,), iterations=4), work_dir)
    assert begin(Settings(configs=(one,), iterations=4), work_dir)[0] == settings
    with pytest.raises(UsageError, match="one is tested on"):
        begin(Settings(configs=(one, two), iterations=4), other)
    assert not list(other.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "val_dataloader = dict(dataset=dict(indices=2))\n",
        "val_dataloader = dict(dataset=dict(metainfo=dict(classes=('square',))))\n",
    ],
    ids=["fewer images", "fewer classes"],
)
def test_the_same_file_is_not_the_same_test(work_dir, tiny_config, text):
    one, two = config_like(tiny_config, "one"), config_like(tiny_config, "two", text)
    with pytest.raises(UsageError, match="with other classes, images or boxes"):
        begin(Settings(configs=(one, two), iterations=4), work_dir)


def test_images_that_change_between_two_calls_are_noticed(work_dir, tmp_path, tiny_coco):
    data = tmp_path / "data"
    shutil.copytree(tiny_coco, data)
    settings = Settings(data, models=("ssd",), iterations=4)
    begin(settings, work_dir)
    file = data / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"].pop()
    file.write_text(json.dumps(content))
    for again in (settings, replace(settings, models=("retinanet",))):
        with pytest.raises(UsageError, match="images or boxes of the test have changed"):
            begin(again, work_dir)
    assert not (work_dir / "configs" / "retinanet.py").exists()


def test_a_config_is_kept_as_it_was_when_it_was_named(work_dir, tiny_config):
    one = config_like(tiny_config, "one")
    settings = Settings(configs=(one,), iterations=4)
    _, drafts = begin(settings, work_dir)
    assert load_config(drafts["one"]).model == load_config(one).model
    config_like(tiny_config, "one", "randomness = dict(seed=3)\n")
    with pytest.raises(UsageError, match=r"one\.py has changed since it was compared"):
        begin(settings, work_dir)
    Path(one).unlink()
    two = config_like(tiny_config, "two")
    _, drafts = begin(Settings(configs=(two,), iterations=4), work_dir)
    assert list(drafts) == ["one", "two"]


def test_a_config_in_the_work_dir_is_refused(work_dir, tiny_config):
    """Its name is that of the config with the budget, which is written there."""
    work_dir.mkdir()
    name = str(shutil.copy(tiny_config, work_dir / "mine.py"))
    with pytest.raises(UsageError, match=r"mine\.py lies in the work dir"):
        begin(Settings(configs=(name,), iterations=4), work_dir)
    assert [path.name for path in work_dir.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("name", ["a\\b", '"""', "it's", "{{fileDirname}}", "a b\n"])
def test_whatever_a_config_is_called_its_budget_is_written(work_dir, tiny_config, name):
    one = config_like(tiny_config, name)
    _, drafts = begin(Settings(configs=(one,), iterations=4), work_dir)
    path = write_config(drafts[name], Schedule(4, 2), work_dir / f"{name}.py")
    assert load_config(path).train_cfg.max_iters == 4


def test_wrong_models_leave_nothing_behind(tmp_path, tiny_coco):
    with pytest.raises(UsageError, match="unknown model 'sdd'"):
        begin(Settings(tiny_coco, models=("sdd",)), tmp_path)
    with pytest.raises(DataError):
        begin(Settings(tmp_path / "no_such", models=("retinanet",)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_touched(tmp_path, tiny_coco):
    (tmp_path / "configs").mkdir()
    with pytest.raises(UsageError, match="of no comparison"):
        begin(Settings(tiny_coco, models=("retinanet",)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]
