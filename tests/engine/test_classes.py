"""A config beside a checkpoint: labels follow the names, whatever order the config has."""

import copy
import json
import logging

import pytest

from fldet.analysis.loss_cdf.logits import collect_logits
from fldet.config.load import load_config
from fldet.engine.test import test as run_test
from fldet.engine.train import train
from fldet.errors import ConfigError, DataError
from fldet.inference.detector import Detector


@pytest.fixture
def swapped(tiny_run):
    cfg = copy.deepcopy(tiny_run[0])
    cfg.classes = ("square", "circle")  # the run has learned them in the order of their ids
    return cfg


@pytest.fixture
def renamed(tiny_run):
    cfg = copy.deepcopy(tiny_run[0])
    cfg.classes = ("square", "disc")
    return cfg


def test_a_test_with_the_classes_in_another_order(tiny_run, swapped, renamed, tmp_path):
    cfg, run = tiny_run
    for one, name in ((cfg, "a"), (swapped, "b")):
        run_test(one, run, work_dir=tmp_path / name, device="cpu")
    found = [json.loads((tmp_path / n / "detections.json").read_text()) for n in ("a", "b")]
    assert found[0] == found[1] != []
    with pytest.raises(ConfigError, match=r"the config has the classes \('square', 'disc'\)"):
        run_test(renamed, run, work_dir=tmp_path / "c", device="cpu")


def test_a_detector_with_the_classes_in_another_order(tiny_run, swapped, renamed, tiny_coco):
    image = str(tiny_coco / "val2017" / "0.png")
    a, b = (
        Detector.load(tiny_run[1], config=cfg, device="cpu").predict(image, score_thr=0.0)[0]
        for cfg in (None, swapped)
    )
    assert a.names == b.names
    with pytest.raises(ConfigError, match="the config has the classes"):
        Detector.load(tiny_run[1], config=renamed, device="cpu")


def test_logits_are_not_collected_for_other_classes(tiny_run, renamed, tmp_path):
    with pytest.raises(ConfigError, match="the config has the classes"):
        collect_logits(renamed, tiny_run[1], tmp_path / "a.npz", device="cpu")


def test_a_run_goes_on_with_its_own_classes_only(tiny_config, tmp_path):
    cfg = load_config(tiny_config, ["train_cfg.max_iters=2", "val_dataloader=None"])
    train(copy.deepcopy(cfg), work_dir=tmp_path / "run", device="cpu")
    cfg.train_cfg.max_iters = 4
    cfg.classes = ("square", "circle")
    with pytest.raises(ConfigError, match=r"the run began with the classes \('circle', 'square'\)"):
        train(cfg, work_dir=tmp_path / "run", resume=True, device="cpu")


@pytest.fixture
def other_val(tiny_run, tiny_coco, tmp_path):
    """Returns the run's config with a changed validation file."""

    def change(edit):
        path = tmp_path / "val.json"
        source = tiny_coco / "annotations" / "instances_val2017.json"
        content = json.loads(source.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        cfg = copy.deepcopy(tiny_run[0])
        cfg.val_dataloader.dataset.ann_file = str(path)
        return cfg

    return change


@pytest.mark.parametrize("key", ["annotations", None])
def test_a_file_without_boxes_gives_detections_and_no_figures(
    tiny_run, other_val, tmp_path, key, caplog
):
    """As COCO's own files for its test images: no list, or an empty one."""
    cfg = other_val(lambda c: c.pop(key) if key else c.update(annotations=[]))
    with caplog.at_level(logging.WARNING, "fldet"):
        result = run_test(cfg, tiny_run[1], work_dir=tmp_path / "test", device="cpu")
    assert json.loads(result.results_file.read_text())
    assert result.figures.main != result.figures.main  # NaN
    assert "no box: there will be detections, but no figures" in caplog.text


def only_squares(content):
    content["categories"] = [one for one in content["categories"] if one["name"] == "square"]
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] == 7]


def test_a_validation_that_lacks_a_class(tiny_run, other_val, tmp_path, tiny_coco):
    """The figures are those of a file that lists the class without having boxes of it."""
    lacking = run_test(other_val(only_squares), tiny_run[1], work_dir=tmp_path / "a", device="cpu")

    def listed(content):
        categories = content["categories"]
        only_squares(content)
        content["categories"] = categories

    full = run_test(other_val(listed), tiny_run[1], work_dir=tmp_path / "b", device="cpu")
    assert lacking.figures.summary == pytest.approx(full.figures.summary, nan_ok=True)
    assert {*lacking.figures.per_class} == {"square"}
    found = json.loads((tmp_path / "a" / "detections.json").read_text())
    assert {one["category_id"] for one in found} == {7}


def test_a_training_without_boxes_ends_before_its_first_step(tiny_config, tiny_coco, tmp_path):
    content = json.loads((tiny_coco / "annotations" / "instances_train2017.json").read_text())
    for one in content["annotations"]:
        one["iscrowd"] = "1"
    path = tmp_path / "crowds.json"
    path.write_text(json.dumps(content))
    cfg = load_config(tiny_config, [f"train_dataloader.dataset.ann_file={path}"])
    with pytest.raises(DataError, match="there is no box to learn from"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run").glob("*.pth"))
