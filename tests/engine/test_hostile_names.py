"""Names of classes and folders stay names, on the way from a data set to the config of its run."""

import json
import os
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest

from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.literals import read_literals
from fldet.checkpoints.paths import newest_checkpoint
from fldet.config.load import load_config
from fldet.inference.detector import Detector

NAMES = [
    "{{$SECRET:x}}",
    "{{$NOVAR:x|(',);__import__('os').mkdir('PWNED');#}}",
    '"""; __import__("os").mkdir("PWNED"); """',
    "'); __import__('os').mkdir('PWNED'); ('",
    "{{ _base_.data_root }}",
    "{{ fileBasename }}",
    "{{{{$SECRET:x}}}}",
    "back\\slash \\",
    "$a$ %s {0} [red]",
]


@pytest.fixture(autouse=True)
def watched_folder(tmp_path, monkeypatch):
    """The current folder is empty before and after, and the environment has a secret."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SECRET", "hunter2")
    yield
    assert os.listdir(folder) == []


def write_coco(root, names):
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(len(names))
    ]
    annotations = [
        {"id": i + 1, "image_id": i, "category_id": i, "bbox": [8, 8, 40, 40], "area": 1600}
        for i in range(len(names))
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        write_images(root / split, len(names))
        (root / f"{split}.json").write_text(json.dumps(content))


def write_voc(root, names):
    write_images(root / "train", len(names))
    box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>48</xmax><ymax>48</ymax></bndbox>"
    for i, name in enumerate(names):
        (root / "train" / f"{i}.xml").write_text(
            f"<annotation><object><name>{escape(name)}</name>{box}</object></annotation>"
        )


def write_yolo(root, names):
    write_images(root / "images" / "train", len(names))
    (root / "labels" / "train").mkdir(parents=True)
    for i in range(len(names)):
        (root / "labels" / "train" / f"{i}.txt").write_text(f"{i} .5 .5 .6 .6\n")
    (root / "data.yaml").write_text(f"train: images/train\nnames: {json.dumps(names)}\n")


def write_images(folder, count):
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((64, 64, 3), 10 * i, np.uint8))


@pytest.mark.parametrize("write", [write_coco, write_voc, write_yolo])
@pytest.mark.parametrize(
    "folder", ["plain", "{{$SECRET:x}}", 'x""";__import__("os").mkdir("PWNED");"""', "a'b\\"]
)
def test_init_writes_names_that_do_nothing(tmp_path, write, folder, fldet):
    root, out = tmp_path / folder, tmp_path / "c.py"
    write(root, NAMES)
    done = fldet("init", root, "--out", out, "--model", "small")
    assert done.returncode == 0, done.stderr
    cfg = load_config(out)
    assert sorted(cfg.classes) == sorted(NAMES)
    assert cfg.data_root == str(root)
    assert "hunter2" not in done.stdout + done.stderr + out.read_text()


@pytest.mark.skipif(os.name != "posix", reason="names that are no text, which POSIX has")
@pytest.mark.parametrize("write", [write_voc, write_yolo])
@pytest.mark.parametrize("words", [("data", "inspect"), ("data", "check"), ("init",)])
def test_an_image_whose_name_is_no_text_ends_no_process(tmp_path, write, words, fldet):
    write(tmp_path / "data", ["a", "b"])
    for path in sorted((tmp_path / "data").rglob("0.*")):
        path.rename(path.with_name(os.fsdecode(b"d\xff") + path.suffix))
    options = ("--out", tmp_path / "c.py", "--model", "small") if words == ("init",) else ()
    done = fldet(*words, tmp_path / "data", *options)
    assert done.returncode in (0, 1), done.stderr
    words = r"d\udcff.png", "image file missing: 1; first image 2"
    assert any(word in done.stdout + done.stderr for word in words)


def test_the_config_of_a_run_and_its_checkpoint_have_names_that_do_nothing(tmp_path, fldet):
    root, out, work_dir = tmp_path / "{{$SECRET:x}}", tmp_path / "c.py", tmp_path / "w"
    write_coco(root, NAMES)
    assert fldet("init", root, "--out", out, "--model", "small").returncode == 0
    short = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.num_workers=0"]
    done = fldet("train", out, "--work-dir", work_dir, "--device", "cpu", "--cfg-options", *short)
    assert done.returncode == 0, done.stderr
    kept = load_config(work_dir / "c.py")
    assert kept.train_dataloader.dataset.metainfo.classes == tuple(NAMES)
    path = newest_checkpoint(work_dir)
    text = read_checkpoint(path)["meta"]["cfg"]
    assert tuple(read_literals(text, path)["classes"]) == tuple(NAMES)
    assert Detector.load(work_dir, device="cpu").classes == tuple(NAMES)
    texts = [done.stdout, done.stderr, *(file.read_text() for file in work_dir.rglob("*.py"))]
    assert not any("hunter2" in one for one in texts)
    picture = root / "val" / "0.png"
    for words in (
        ("test", out, work_dir, "--work-dir", tmp_path / "t", "--show-dir", tmp_path / "s"),
        ("predict", work_dir, picture, "--out", tmp_path / "o", "--score-thr", "0"),
        ("report", work_dir, "--out", tmp_path / "r.html"),
        ("data", "inspect", root),
        ("analyze", "dataset", out, "--out-dir", tmp_path / "d"),
    ):
        done = fldet(*words)
        assert done.returncode == 0, (words, done.stderr)
        assert "hunter2" not in done.stdout + done.stderr
