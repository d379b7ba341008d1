"""Data without a validation split gets one from ``fldet init``, which all commands see."""

import json
import shutil

import cv2
import numpy as np
import pytest

from fldet.analysis.init import init_config
from fldet.config.load import load_config
from fldet.config.prepare import dataset_of, prepare_config
from fldet.errors import CheckpointError, DataError, UsageError
from fldet.evaluation.ground_truth import load_truth
from fldet.registry import DATASETS


def only_training(name, bccd, bccd_yolo, folder):
    """The blood cells in a format, without any other split."""
    if name == "coco":
        return bccd / "annotations" / "train.json"
    if name == "voc":
        for part in ("Annotations", "JPEGImages"):
            (folder / part).symlink_to(bccd / "BCCD" / part)
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        shutil.copy(bccd / "BCCD" / "ImageSets" / "Main" / "train.txt", folder / "ImageSets/Main")
        return folder
    for part in ("images", "labels"):
        (folder / part).symlink_to(bccd_yolo / part)
    text = (bccd_yolo / "data.yaml").read_text()
    (folder / "data.yaml").write_text(text.replace("val: images/val\ntest: images/test\n", ""))
    return folder


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_blood_cells_of_one_split_are_divided(name, bccd, bccd_yolo, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    path = only_training(name, bccd, bccd_yolo, data)
    before = sorted(data.rglob("*"))
    result = init_config(path, tmp_path / "my.py", model="small")
    assert sorted(data.rglob("*")) == before
    assert (result.images, result.validation) == (164, 41)
    text = result.path.read_text()
    assert "41 of 205 training images are set aside" in text
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines()[6:])) <= 100 + len(str(result.set_aside))
    cfg = prepare_config(load_config(result.path), phases=("train", "val", "test"))
    train, val = (DATASETS.build(cfg[f"{one}_dataloader"].dataset) for one in ("train", "val"))
    files = [{one.get_data_info(i)["img_path"] for i in range(len(one))} for one in (train, val)]
    assert (len(files[0]), len(files[1]), files[0] & files[1]) == (164, 41, set())
    assert (len(train), len(val)) == (164, 41)
    listed = json.loads(result.set_aside.read_text())
    assert len(listed) == 41
    assert all(any(file.endswith(one) for file in files[1]) for one in listed)
    for phase in ("val", "test"):
        metric = cfg[f"{phase}_evaluator"]
        metric = metric[0] if isinstance(metric, list) else metric
        truth = load_truth("a metric", metric.get("ann_file"), metric.get("dataset"))
        assert set(truth.images) == {val.get_data_info(i)["img_id"] for i in range(len(val))}
    kind, dataset = dataset_of(load_config(result.path), "val")
    assert len(kind.read(dataset)["images"]) == len(kind.read_truth(dataset)["images"]) == 41
    again = init_config(path, tmp_path / "other.py", model="small", val=0.2)
    assert json.loads(again.set_aside.read_text()) == listed


def numbered_copies(root, count=10):
    """A training split of as many pictures, each with two copies that are no equal files."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        picture = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (128, 96))
        for suffix, image in {
            "a.png": picture,
            "b.jpg": picture,
            "c.png": cv2.resize(cv2.convertScaleAbs(picture[2:, 3:], beta=10), (96, 72)),
        }.items():
            height, width = image.shape[:2]
            key = len(images) + 1
            images.append(
                {"id": key, "file_name": f"{index}{suffix}", "width": width, "height": height}
            )
            cv2.imwrite(str(root / "images" / f"{index}{suffix}"), image)
            annotations.append(
                {"id": key, "image_id": key, "category_id": 1 + index % 2, "bbox": [9, 9, 40, 40]}
            )
    categories = [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def test_copies_do_not_fall_on_both_sides(tmp_path):
    result = init_config(numbered_copies(tmp_path / "data"), tmp_path / "my.py", model="small")
    assert (result.groups, result.images, result.validation) == (10, 24, 6)
    names = json.loads(result.set_aside.read_text())
    assert (
        sorted(name[1:] for name in names) == ["a.png", "a.png", "b.jpg", "b.jpg"] + ["c.png"] * 2
    )
    assert len({int(name[0]) % 2 for name in names}) == 2


def test_images_that_a_validation_would_end_at_stay_in_training(tmp_path, caplog):
    root = numbered_copies(tmp_path / "data")
    first = init_config(root, tmp_path / "first.py", model="small")
    name, *_, other = json.loads(first.set_aside.read_text())
    (root / "images" / name).write_bytes(b"no image")
    cv2.imwrite(str(root / "images" / other), np.zeros((50, 40, 3), np.uint8))
    result = init_config(root, tmp_path / "my.py", model="small")
    assert not {name, other} & set(json.loads(result.set_aside.read_text()))
    assert f"not in the annotated size, stay in training: {name!r}, {other!r}" in caplog.text


def test_all_commands_see_the_images_that_were_set_aside(tmp_path, fldet):
    root = numbered_copies(tmp_path / "data")
    out, work_dir = tmp_path / "my.py", tmp_path / "w"
    options = ("--model", "small", "--size", "64x48", "--val", "0.3")
    made = fldet("init", root, "--out", out, *options)
    assert made.returncode == 0, made.stderr
    assert "9 of 30 training images, set aside" in made.stdout
    short = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.num_workers=0"]
    short += ["val_dataloader.num_workers=0", "default_hooks.checkpoint.interval=1"]
    options = ("--work-dir", work_dir, "--device", "cpu", "--cfg-options", *short)
    done = fldet("train", out, *options)
    assert done.returncode == 0, done.stderr
    assert "AP" in done.stderr
    resumed = fldet("train", out, "--resume", *options, "train_cfg.max_iters=2")
    assert resumed.returncode == 0, resumed.stderr
    tested = fldet("test", out, work_dir, "--work-dir", tmp_path / "t", "--device", "cpu", "--json")
    assert tested.returncode == 0, tested.stderr
    assert json.loads(tested.stdout)["result"]["figures"]["num_images"] == 9
    for words, count in (
        (("analyze", "dataset", out, "--split", "val", "--json"), 9),
        (("analyze", "dataset", out, "--split", "train", "--json"), 21),
    ):
        done = fldet(*words, "--out-dir", tmp_path / "d")
        assert json.loads(done.stdout)["result"]["summary"]["images"] == count, done.stderr
    drawn = {path.name for path in (tmp_path / "d").iterdir()}
    assert {"annotations_val.png", "annotations_train.png"} <= drawn
    checked = fldet("data", "check", out, "--json")
    assert checked.returncode == 0, checked.stderr
    assert [one["images"] for one in json.loads(checked.stdout)["result"]["files"]] == [30]
    reported = fldet("report", work_dir, "--out", tmp_path / "r.html")
    assert reported.returncode == 0, reported.stderr


def test_what_is_refused_and_what_stays_as_it_was(tiny_coco, tmp_path, caplog, fldet):
    out = tmp_path / "my.py"
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match=f"val is {share}"):
            init_config(tiny_coco, out, val=share)
    with pytest.raises(UsageError, match="has images to validate on") as error:
        init_config(tiny_coco, out, val=0.2)
    assert "name the file or folder" in error.value.hint
    assert init_config(tiny_coco, tmp_path / "zero.py", val=0).validation == 6
    alike = numbered_copies(tmp_path / "alike", 1)
    with pytest.raises(DataError, match="all images are near copies") as error:
        init_config(alike, out, val=0.5)
    assert "--val 0 " in error.value.hint
    assert [*tmp_path.glob("my*")] == []
    assert init_config(alike, out).validation == 0
    assert "no images are set aside to validate on: all images are near copies" in caplog.text
    refused = fldet("init", tiny_coco, "--out", tmp_path / "b.py", "--val", "2")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_list_that_is_there_is_not_overwritten(tmp_path):
    root = numbered_copies(tmp_path / "data")
    (tmp_path / "my_val.json").write_text("mine")
    with pytest.raises(UsageError, match=r"my_val.json exists"):
        init_config(root, tmp_path / "my.py", model="small")
    assert (tmp_path / "my_val.json").read_text() == "mine"
    (tmp_path / "my_val.json").unlink()
    with pytest.raises(CheckpointError):
        init_config(root, tmp_path / "my.py", model="small", finetune=tmp_path / "no.pth")
    assert not (tmp_path / "my_val.json").exists()


def test_faults_of_a_list(tiny_coco, tmp_path):
    (tmp_path / "data").symlink_to(tiny_coco)
    file = tmp_path / "list.json"
    options = {
        "type": "fldet.CocoDataset",
        "data_root": str(tmp_path),
        "ann_file": "data/annotations/instances_train2017.json",
        "data_prefix": {"img": "data/train2017"},
        "pipeline": [],
        "test_mode": True,
    }
    for text, message in (
        (None, "list of images"),
        ("{", "is not JSON"),
        ("[1]", r"is \[1\]"),
        ('["other.png"]', "none of the images that .* lists is in the data"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(DataError, match=message):
            DATASETS.build({**options, "only_images": "list.json"})
    file.write_text('["0.png", "3.png"]')
    assert len(DATASETS.build({**options, "only_images": "list.json"})) == 2
    assert len(DATASETS.build({**options, "without_images": "list.json"})) == 4
