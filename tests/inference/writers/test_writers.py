"""Predictions as data sets: written, then read by our own readers and by other libraries."""

import csv
import json
import os
import shutil

import pytest
from PIL import Image

from fldet.data.formats.recognise import recognise
from fldet.inference.folder import read_lines
from fldet.inference.predict import predict
from fldet.inference.writers import WRITERS
from fldet.inference.writers.pictures import pictures

CLASSES = ("a cat", 'it\'s "dog" & <cow> Ünïcode 猫')
FOUND = {
    "one.jpg": [([10.25, 20.5, 60.125, 80.75], 0, 0.9), ([0, 0, 200, 100], 1, 0.5)],
    "sub/one.jpg": [([199.2, 3, 199.9, 4], 1, 0.25)],  # thinner than a pixel
    "sub/one.png": [([1, 2, 3, 4], 0, 0.5)],  # of the same stem
    "a & b's é.jpg": [],
}
SIZE = (200, 100)
TOLERANCE = {"coco-dataset": 1e-9, "label-studio": 1e-3, "csv": 1e-3, "yolo": 2e-3, "voc": 0.51}
FILES = {"coco-dataset": "dataset.json", "label-studio": "label_studio.json", "csv": "boxes.csv"}


@pytest.fixture
def lines(tmp_path):
    """Lines of two processes about images in ``photos``, and of a frame of a video."""
    texts = []
    for name, boxes in FOUND.items():
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(file)
        columns = [list(column) for column in zip(*boxes, strict=True)] or [[], [], []]
        names = [CLASSES[label] for label in columns[1]]
        facts = {"file": str(file), "width": SIZE[0], "height": SIZE[1], "names": names}
        facts |= dict(zip(("boxes", "labels", "scores"), columns, strict=True))
        texts.append(json.dumps(facts) + "\n")
    frame = json.dumps({**facts, "file": "film.mp4", "frame": 3}) + "\n"
    out = tmp_path / "out"
    out.mkdir()
    paths = [out / f"predictions.{rank}-of-2.jsonl" for rank in range(2)]
    paths[0].write_text("".join(texts[:2]))
    paths[1].write_text("".join(texts[2:]) + frame + '{"file": "half')
    return paths


def written(name, lines):
    """Returns what our readers make of what a writer has written: boxes by image, and notes."""
    out = lines[0].parent
    WRITERS[name](lines, out, CLASSES)
    images = None if name == "yolo" else out.parent / "photos"
    if name == "voc":
        images = out / "voc" / "JPEGImages"
    found = recognise(out / FILES.get(name, name), images)
    content = found.read("train")
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: one["file_name"] for one in content["images"]}
    boxes = {file: [] for file in files.values()}
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        boxes[files[one["image_id"]]].append((names[one["category_id"]], [x, y, x + w, y + h]))
    for file in boxes:
        assert (found.image_folder("train") / file).is_file()
    return {file.removeprefix("images/"): one for file, one in boxes.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_read_again(lines, name):
    kept = [line for line in lines[1].read_text().splitlines(True) if "film" not in line]
    lines[1].write_text("".join(kept))
    found = written(name, lines)
    renamed = {"sub/one.png": "sub/one_png.png"} if name in ("yolo", "voc") else {}
    assert found.keys() == {renamed.get(file, file) for file in FOUND}
    for file, boxes in FOUND.items():
        again = found[renamed.get(file, file)]
        assert [one[0] for one in again] == [CLASSES[label] for _, label, _ in boxes]
        for (_, corners), (box, *_) in zip(again, boxes, strict=True):
            assert corners == pytest.approx(box, abs=TOLERANCE[name])


@pytest.mark.parametrize("name", WRITERS)
def test_writing_again_replaces_what_was_there(lines, name):
    def files(out):
        return {path for path in out.rglob("*") if "predictions" not in path.name}

    out = lines[0].parent
    WRITERS[name](lines[:1], out, CLASSES)
    few = files(out)
    (out / ".yolo.part").mkdir()  # of a run that was killed
    made = WRITERS[name](lines, out, CLASSES)
    again = files(out)
    WRITERS[name](lines, out, CLASSES)
    assert files(out) == again
    assert len(again - {out / ".yolo.part"}) >= len(few)
    assert all(path.exists() for path in made)


def test_frames_are_left_out_of_data_sets_and_are_in_the_table(lines, caplog):
    names = [one.name for one in pictures(lines)]
    assert sorted(names) == sorted(FOUND)
    out = lines[0].parent
    WRITERS["csv"](lines, out, CLASSES)
    rows = [*csv.DictReader((out / "boxes.csv").read_text(encoding="utf-8").splitlines())]
    assert [row["frame"] for row in rows if row["image"] == "film.mp4"] == ["3"]
    assert [float(row["score"]) for row in rows if row["score"]] == [0.9, 0.5, 0.25, 0.5]


def test_scores_are_kept_where_the_format_has_a_place(lines):
    out = lines[0].parent
    WRITERS["coco-dataset"](lines, out, CLASSES)
    WRITERS["label-studio"](lines, out, CLASSES)
    annotations = json.loads((out / "dataset.json").read_text())["annotations"]
    assert [one["score"] for one in annotations] == [0.9, 0.5, 0.25, 0.5]
    tasks = json.loads((out / "label_studio.json").read_text())
    assert [one["score"] for task in tasks for one in task["predictions"][0]["result"]] == [
        *(0.9, 0.5, 0.25, 0.5)
    ]


def test_where_links_are_impossible_images_are_copied(lines, monkeypatch):
    def refuse(*_):
        raise OSError("no links")

    image = lines[0].parent.parent / "photos" / "one.jpg"
    copy = lines[0].parent / "yolo" / "images" / "one.jpg"
    WRITERS["yolo"](lines, lines[0].parent, CLASSES)
    assert copy.samefile(image)
    monkeypatch.setattr(os, "link", refuse)
    WRITERS["yolo"](lines, lines[0].parent, CLASSES)
    assert not copy.samefile(image)
    assert copy.read_bytes() == image.read_bytes()


def test_an_image_that_is_gone_is_left_out(lines):
    (lines[0].parent.parent / "photos" / "one.jpg").unlink()
    WRITERS["voc"](lines, lines[0].parent, CLASSES)
    files = (lines[0].parent / "voc" / "Annotations").rglob("*.xml")
    assert sorted(file.name for file in files) == ["a & b's é.xml", "one.xml", "one_png.xml"]


def test_a_run_that_is_resumed_writes_all_its_images(tiny_run, tiny_coco, tmp_path):
    out, photos = tmp_path / "out", tmp_path / "photos"
    shutil.copytree(tiny_coco / "val2017", photos)
    options = {"score_thr": 0.05, "device": "cpu", "formats": [*WRITERS]}
    predict(tiny_run[1], str(photos / "[0-2].png"), out, **options)
    result = predict(tiny_run[1], str(photos), out, resume=True, **options)
    assert (result.images, result.already_done) == (3, 3)
    count = sum(len(line["boxes"]) for line in read_lines(out / "predictions.jsonl"))
    assert count > 0
    for name in WRITERS:
        path = out / FILES.get(name, name)
        content = recognise(path, None if name in ("yolo", "voc") else photos).read("train")
        assert (len(content["images"]), len(content["annotations"])) == (6, count)
    predict(
        tiny_run[1],
        str(photos),
        out,
        overwrite=True,
        score_thr=0.05,
        device="cpu",
        formats=["jsonl"],
    )
    assert {*os.listdir(out)} == {"predict.json", "predictions.jsonl", "skipped.jsonl"}


# --- by other libraries ---


def test_globox_reads_the_same(lines):
    globox = pytest.importorskip("globox")
    out = lines[0].parent
    for name in ("coco-dataset", "voc"):
        WRITERS[name](lines, out, CLASSES)
    expected = {file: len(boxes) for file, boxes in FOUND.items()}
    found = globox.AnnotationSet.from_coco(out / "dataset.json")
    assert {one.image_id: len(one.boxes) for one in found} == expected
    voc = globox.AnnotationSet.from_pascal_voc(out / "voc" / "Annotations")
    assert sum(len(one.boxes) for one in voc) > 0


def test_what_globox_writes_is_read(lines):
    globox = pytest.importorskip("globox")
    out = lines[0].parent
    WRITERS["coco-dataset"](lines, out, CLASSES)
    found = globox.AnnotationSet.from_coco(out / "dataset.json")
    (out / "cvat").mkdir()
    found.save_cvat(out / "cvat" / "annotations.xml")
    content = recognise(out / "cvat", out.parent / "photos").read("train")
    assert len(content["images"]) == len(FOUND)
    boxes = sorted(one["bbox"] for one in content["annotations"])
    truth = json.loads((out / "dataset.json").read_text())["annotations"]
    assert boxes == [pytest.approx(box, abs=1e-3) for box in sorted(one["bbox"] for one in truth)]


@pytest.mark.filterwarnings("ignore")
def test_datumaro_reads_the_same(lines):
    datumaro = pytest.importorskip("datumaro")
    out = lines[0].parent
    WRITERS["voc"](lines, out, CLASSES)
    data = datumaro.Dataset.import_from(str(out / "voc"), "voc")
    kinds = datumaro.AnnotationType.bbox
    found = {one.id: sum(a.type == kinds for a in one.annotations) for one in data}
    assert found == {"one": 2, "sub/one": 1, "sub/one_png": 1, "a & b's é": 0}
