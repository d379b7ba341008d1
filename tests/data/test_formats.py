import json
import shutil

import pytest

from fldet.data.formats import recognise, used_classes
from fldet.errors import DataError, UsageError


def test_coco_in_its_own_layout(coco_mini):
    found = recognise(coco_mini)
    assert (found.format, list(found.splits)) == ("COCO", ["train", "val"])
    assert found.options("val") == {
        "data_root": str(coco_mini),
        "type": "fldet.CocoDataset",
        "ann_file": "annotations/instances_val2017.json",
        "data_prefix": {"img": "val2017"},
    }


def test_coco_with_images_elsewhere(bccd):
    found = recognise(bccd)
    assert list(found.splits) == ["train", "val", "test"]
    assert {one["data_prefix"]["img"] for one in found.splits.values()} == {"BCCD/JPEGImages"}
    one = recognise(bccd / "annotations" / "val.json")
    assert (one.root, one.splits) == (bccd, {"val": found.splits["val"]})


def test_voc(bccd):
    found = recognise(bccd / "BCCD")
    assert (found.format, list(found.splits)) == ("Pascal VOC", ["train", "val", "test"])
    assert found.splits["test"] == {
        "type": "fldet.VOCDataset",
        "ann_file": "ImageSets/Main/test.txt",
        "data_prefix": {"img": "JPEGImages"},
    }
    apart = recognise(bccd / "BCCD" / "Annotations")
    assert apart.root == bccd / "BCCD"
    assert apart.splits == {
        "train": {
            "type": "fldet.VOCDataset",
            "ann_file": "Annotations",
            "data_prefix": {"img": "JPEGImages"},
        }
    }
    assert len(apart.read("train")["images"]) == 364


def test_voc_without_lists(tmp_path, bccd):
    for folder, number in (("train", 1), ("valid", 2)):
        (tmp_path / folder).mkdir()
        stem = sorted((bccd / "BCCD" / "Annotations").glob("*.xml"))[number].stem
        shutil.copy(bccd / "BCCD" / "Annotations" / f"{stem}.xml", tmp_path / folder)
        image = bccd / "BCCD" / "JPEGImages" / f"{stem}.jpg"
        (tmp_path / folder / image.name).symlink_to(image)
    found = recognise(tmp_path)
    assert [one["ann_file"] for one in found.splits.values()] == ["train", "valid"]
    assert found.image_folder("val") == tmp_path / "valid"
    assert len(found.read("val")["images"]) == 1
    beside = recognise(tmp_path / "train")
    assert (beside.root, beside.splits["train"]["data_prefix"]) == (tmp_path, {"img": "train"})
    next((tmp_path / "train").glob("*.jpg")).unlink()
    with pytest.raises(DataError, match=r"no image belongs to .*xml"):
        recognise(tmp_path)


def test_trainval_is_for_training_where_there_is_no_train(tmp_path, bccd):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).symlink_to(bccd / "BCCD" / name)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name in ("trainval", "test"):
        shutil.copy(bccd / "BCCD" / "ImageSets" / "Main" / f"{name}.txt", lists)
    splits = recognise(tmp_path).splits
    assert list(splits) == ["train", "test"]
    assert splits["train"]["ann_file"] == "ImageSets/Main/trainval.txt"


def test_yolo(bccd_yolo):
    for path in (bccd_yolo, bccd_yolo / "data.yaml"):
        found = recognise(path)
        assert (found.format, list(found.splits)) == ("YOLO", ["train", "val", "test"])
    with pytest.raises(UsageError, match="has no split 'all'"):
        found.options("all")


def test_yolo_with_a_split_that_is_not_there(bccd_yolo, tmp_path):
    (tmp_path / "images").symlink_to(bccd_yolo / "images")
    (tmp_path / "labels").symlink_to(bccd_yolo / "labels")
    text = "names: [RBC, WBC, Platelets]\ntrain: images/val\nval: images/none\n"
    (tmp_path / "a.yaml").write_text(text)
    found = recognise(tmp_path)
    assert list(found.splits) == ["train"]
    assert found.notes == ["a.yaml names a 'val' that is not there"]
    (tmp_path / "a.yaml").write_text("names: [a]\nval: none")
    with pytest.raises(DataError, match=r"none of its splits has images: .*none"):
        recognise(tmp_path)
    (tmp_path / "b.yaml").write_text("names: [a]")
    with pytest.raises(DataError, match=r"several YAML files with names: a.yaml, b.yaml"):
        recognise(tmp_path)


def test_roboflow(roboflow):
    found = recognise(roboflow)
    assert (found.format, list(found.splits)) == ("Roboflow COCO", ["train", "val"])
    assert found.splits["val"] == {
        "type": "fldet.CocoDataset",
        "ann_file": "valid/_annotations.coco.json",
        "data_prefix": {"img": "valid"},
    }
    contents = [found.read(split) for split in found.splits]
    assert used_classes(contents) == (("circle", "square"), ("shapes",))


def test_a_group_with_boxes_is_a_class():
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "red", "supercategory": "cells"},
    ]
    content = {"categories": categories, "annotations": [{"category_id": 0}], "images": []}
    assert used_classes([content]) == (("cells", "red"), ())


def test_unknown_and_ambiguous(tmp_path, bccd, bccd_yolo, voc_mini):
    with pytest.raises(DataError, match=r"there is no .*/none"):
        recognise(tmp_path / "none")
    with pytest.raises(DataError, match="no data set that fldet knows") as error:
        recognise(tmp_path)
    for word in ("_annotations.coco.json", "ImageSets/Main", ".yaml", "annotations"):
        assert word in error.value.expected
    with pytest.raises(DataError) as error:
        recognise(voc_mini / "VOCdevkit")
    assert error.value.hint.endswith("VOC2007 looks like one")
    (tmp_path / "annotations").symlink_to(bccd / "annotations")
    (tmp_path / "BCCD").symlink_to(bccd / "BCCD")
    shutil.copy(bccd_yolo / "data.yaml", tmp_path)
    (tmp_path / "images").symlink_to(bccd_yolo / "images")
    with pytest.raises(DataError, match="looks like COCO and like YOLO"):
        recognise(tmp_path)


def test_coco_files_that_cannot_be_told_apart(tmp_path, bccd):
    for name in ("a.json", "b.json"):
        shutil.copy(bccd / "annotations" / "val.json", tmp_path / name)
    with pytest.raises(DataError, match=r"several COCO files: a.json, b.json"):
        recognise(tmp_path)
    (tmp_path / "b.json").unlink()
    with pytest.raises(DataError, match=r"a.json: no folder in .* has its images"):
        recognise(tmp_path)
    (tmp_path / "pictures").symlink_to(bccd / "BCCD" / "JPEGImages")
    assert recognise(tmp_path).splits["train"]["data_prefix"] == {"img": "pictures"}
    (tmp_path / "results.json").write_text(json.dumps([]))
    assert list(recognise(tmp_path).splits) == ["train"]
