"""What training and testing do with images that are broken or not there."""

import json
import logging
import shutil

import pytest

from fldet.config.load import load_config
from fldet.config.prepare import datasets_of, prepare_config
from fldet.engine.hooks import BrokenImagesHook
from fldet.engine.train import train
from fldet.engine.workers import worker_errors
from fldet.errors import BrokenImageError, DataError, UsageError


@pytest.fixture
def data(tiny_coco, tmp_path):
    """A copy of the six images, to break."""
    root = tmp_path / "data"
    shutil.copytree(tiny_coco, root)
    return root


@pytest.fixture
def cfg(tiny_config, data):
    return load_config(tiny_config, [f"data_root={data}", "train_cfg.max_iters=2"])


def test_images_are_read_by_the_step_that_names_broken_ones(cfg):
    prepared = prepare_config(cfg, phases=("train",))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert prepared[loader].dataset.pipeline[0].type == "fldet.LoadImageFromFile"


def test_a_broken_validation_image_is_an_error(cfg, data, tmp_path):
    """Figures must not lose images silently."""
    path = data / "val2017" / "3.png"
    path.write_bytes(path.read_bytes()[:-5])
    cfg.train_cfg.val_interval = 2
    with pytest.raises(BrokenImageError, match=r"val2017/3\.png: truncated after"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")


def test_a_missing_validation_image_is_an_error_before_training(cfg, data, tmp_path):
    (data / "val2017" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 image files of .*val2017\.json are missing: .*3"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run").glob("*.pth"))


def test_missing_training_images_are_a_warning_up_to_the_number(cfg, data, tmp_path, caplog):
    (data / "train2017" / "3.png").unlink()
    with caplog.at_level(logging.WARNING, "fldet"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    [line] = [text for text in caplog.messages if "training goes on without" in text]
    assert "1 of 6 image files" in line
    cfg.train_dataloader.dataset.max_broken_images = 0
    with pytest.raises(DataError, match="1 of 6 image files"):
        train(cfg, work_dir=tmp_path / "run2", device="cpu")


def test_ground_truth_that_cannot_be_evaluated_stops_before_training(cfg, data, tmp_path):
    path = data / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] = float("nan")
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"val2017\.json: annotation 0 is malformed"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert not list((tmp_path / "run").glob("*.pth"))


def test_the_hook_logs_each_line_of_the_list_once(tmp_path, caplog):
    file = tmp_path / "broken_images.txt"
    hook = BrokenImagesHook(str(file))
    with caplog.at_level(logging.WARNING, "fldet"):
        hook.after_train_iter(None, 0)
        file.write_text("a: empty\na: empty\n")
        hook.after_train_iter(None, 1)
        hook.after_train_iter(None, 2)
        file.write_text("a: empty\na: empty\nb: gone\n")
        hook.after_train(None)
    assert caplog.messages == [
        "broken image left out: a: empty",
        "broken image left out: b: gone",
        f"2 broken images were left out of the training; they are listed in {file}",
    ]


def test_an_error_of_a_loader_process_loses_the_traceback():
    text = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most ...):\n  x\n"
    with pytest.raises(DataError) as error, worker_errors():
        raise DataError(f"{text}fldet.errors.DataError: a is empty\nExpected: b\nHint: c\n")
    assert str(error.value) == "a is empty\nExpected: b\nHint: c"
    with pytest.raises(UsageError, match=r"^plain$"), worker_errors():
        raise UsageError("plain")


def test_files_of_a_config(cfg, data):
    annotations = data / "annotations"
    found = [
        (kind.annotation_file(dataset), kind.image_folder(dataset))
        for kind, dataset in datasets_of(cfg)
    ]
    assert found == [
        (annotations / "instances_train2017.json", data / "train2017"),
        (annotations / "instances_val2017.json", data / "val2017"),
    ]
    ((kind, dataset),) = datasets_of(cfg, ["val"])
    assert kind.annotation_file(dataset) == annotations / "instances_val2017.json"
    with pytest.raises(UsageError, match="test_dataloader has no data set"):
        datasets_of(cfg, ["test"])
