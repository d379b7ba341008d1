"""``fldet data split``: lists of images, of each format, by groups, with what is odd about it."""

import json
import logging
from pathlib import Path

import pytest

from fldet.data.folds.files import fold_of_names, list_of_fold, read_folds
from fldet.data.folds.split import SplitOptions, split_data
from fldet.errors import DataError, UsageError


@pytest.fixture
def annotated(tiny_coco, tmp_path):
    """The tiny data set with a field for the patient: four images of a, one of b and of c."""
    file = tiny_coco / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    for image, patient in zip(content["images"], "aaaabc", strict=True):
        image["patient"] = patient
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    return path, tiny_coco / "train2017"


def folds_of(path, images=None, **options):
    found = split_data(path, SplitOptions(**options), images=images)
    assert read_folds(found.folder) == found.division.folds
    assert fold_of_names(found.folder) == found.division.fold_of
    return found


def test_lists_and_counts(annotated, tmp_path):
    path, images = annotated
    found = folds_of(path, images, folds=2, stratify=True)
    assert found.folder == tmp_path.with_name(f"{tmp_path.name}_folds")
    assert found.division.images == (3, 3)
    # of the five images with a square and a circle each, one square is a crowd region
    counts = {name: sorted(one) for name, one in found.division.boxes.items()}
    assert counts == {"circle": [2, 3], "square": [2, 2]}
    assert json.loads(list_of_fold(found.folder, 1).read_text()) == sorted(
        name for name, fold in found.division.fold_of.items() if fold == 1
    )
    with pytest.raises(UsageError, match="has folds already"):
        folds_of(path, images, folds=2)


@pytest.mark.parametrize("group_by", ["patient", r"^[0-3](\.)png"])
def test_a_field_or_what_a_pattern_finds_keeps_images_together(annotated, group_by):
    path, images = annotated
    found = folds_of(path, images, folds=3, group_by=group_by)
    assert sorted(found.division.images) == [1, 1, 4]
    assert found.division.folds.groups == 3


def test_bad_groups_are_errors_and_unknown_ones_are_named(annotated, caplog, monkeypatch):
    path, images = annotated
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    with pytest.raises(DataError, match=r"6 images in 3 groups .* too few for 4 folds"):
        folds_of(path, images, folds=4, group_by="patient")
    with pytest.raises(DataError, match=r"is neither a field .* nor found in any of their 6"):
        folds_of(path, images, folds=2, group_by="nowhere")
    with pytest.raises(UsageError, match="as a regular expression it is malformed"):
        folds_of(path, images, folds=2, group_by="([")
    with pytest.raises(UsageError, match="1 folds"):
        folds_of(path, images, folds=1)
    folds_of(path, images, folds=2, group_by="^([01])")
    assert "says nothing about 4 of 6 images" in caplog.text


def test_rare_classes_and_unreadable_images_are_named(annotated, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    path, images = annotated
    content = json.loads(path.read_text())
    content["categories"].append({"id": 9, "name": "rare"})
    content["annotations"][2]["category_id"] = 9
    content["images"][5]["width"] = 63  # not that of the file
    path.write_text(json.dumps(content))
    found = folds_of(path, images, folds=2)
    assert "5.png" in caplog.text
    assert "5.png" not in found.division.fold_of
    assert "rare (1)" in caplog.text
    assert "is not trained where that is left out" in caplog.text
    assert "square" not in caplog.text


def test_near_copies_stay_together(annotated, tmp_path):
    path, images = annotated
    folder = tmp_path / "images"
    folder.mkdir()
    content = json.loads(path.read_text())
    for image in list(content["images"]):
        (folder / image["file_name"]).symlink_to(images / image["file_name"])
        copied = {**image, "id": image["id"] + 1, "file_name": f"copy_of_{image['file_name']}"}
        (folder / copied["file_name"]).symlink_to(images / image["file_name"])
        content["images"].append(copied)
    path.write_text(json.dumps(content))
    fold_of = folds_of(path, folder, folds=3).division.fold_of
    assert len(fold_of) == 12
    assert all(fold_of[f"{i}.png"] == fold_of[f"copy_of_{i}.png"] for i in range(6))


def test_a_list_that_names_an_image_twice_is_an_error(annotated):
    path, images = annotated
    folder = folds_of(path, images, folds=2).folder
    list_of_fold(folder, 2).write_text(list_of_fold(folder, 1).read_text())
    with pytest.raises(DataError, match="is in fold 1 and in fold 2"):
        fold_of_names(folder)
    list_of_fold(folder, 2).unlink()
    with pytest.raises(DataError, match=r"fold_2.json is missing"):
        read_folds(folder)


def test_voc_and_yolo_are_divided_as_they_are_read(fldet, voc_mini, bccd_yolo, tmp_path):
    for path in (voc_mini / "VOCdevkit" / "VOC2007", bccd_yolo):
        out = tmp_path / path.name
        done = fldet("data", "split", path, "--folds", "3", "--stratify", "--out", out, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)["result"]
        assert Path(result["folder"]) == out
        assert sum(result["images"]) == result["folds"]["images"] == len(fold_of_names(out))
        assert "stays as it is" in done.stderr
