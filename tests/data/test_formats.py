import json
import os
import shutil

import pytest
from PIL import Image

from fldet.data.coco import CocoDataset
from fldet.data.formats.found import oddities, used_classes
from fldet.data.formats.recognise import recognise
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


VOC_XML = """<annotation><filename>{0}.jpg</filename>
<size><width>64</width><height>64</height></size>
<object><name>{1}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>31</xmax><ymax>31</ymax></bndbox>
</object></annotation>"""


def write(path, data=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)


def voc_at(root, *names, xml="Annotations", images="JPEGImages"):
    for name in names:
        write(root / xml / f"{name}.xml", VOC_XML.format(name, "cat"))
        write(root / images / f"{name}.jpg")


def files_of(found, split):
    return [one["file_name"] for one in found.read(split)["images"]]


@pytest.mark.parametrize("xml", ["Annotations", "annotations", "annotations/xmls", "xmls", "."])
@pytest.mark.parametrize("lists", ["ImageSets/Main", "imagesets/main", "ImageSets", "."])
def test_lists_are_used_wherever_they_and_the_files_lie(tmp_path, xml, lists):
    voc_at(tmp_path, "1", "2", xml=xml)
    write(tmp_path / lists / "train.txt", "1")
    write(tmp_path / lists / "Validation.txt", "2")
    found = recognise(tmp_path)
    assert [files_of(found, split) for split in found.splits] == [["1.jpg"], ["2.jpg"]]
    assert (list(found.splits), found.notes) == (["train", "val"], [])


@pytest.mark.parametrize(
    ("lists", "splits", "note"),
    [
        (["default"], {"train": "default"}, None),
        (
            ["train", "val", "trainval", "cat_train", "cat_val"],
            {"train": "train", "val": "val"},
            None,
        ),
        (["train", "default"], {"train": "train"}, "not used: ImageSets/Main/default.txt"),
        (["train", "small"], {"train": "train"}, "not used: ImageSets/Main/small.txt"),
        (["train", "valid", "validation"], {"train": "train", "val": "valid"}, "validation.txt"),
        (["trainval", "val", "test"], {"train": "trainval", "test": "test"}, "val.txt is not used"),
        (["train2007", "test2007"], {"train": "train2007", "test": "test2007"}, None),
        (["trainval", "eval"], {"train": "trainval"}, "eval.txt is not used"),
    ],
)
def test_names_of_lists(tmp_path, lists, splits, note):
    voc_at(tmp_path, "1", "2")
    for name in lists:
        write(tmp_path / "ImageSets" / "Main" / f"{name}.txt", "1\n2")
    found = recognise(tmp_path)
    used = {split: one["ann_file"] for split, one in found.splits.items()}
    assert used == {split: f"ImageSets/Main/{name}.txt" for split, name in splits.items()}
    assert [note in text for text in found.notes] == ([True] if note else [])


@pytest.mark.parametrize(
    "list_file",
    [
        "Layout/train.txt",
        "Segmentation/val.txt",
        "Main/cat_train.txt",
        "Main/default2.txt",
        "a.txt",
    ],
)
def test_lists_that_are_not_used_are_named(tmp_path, list_file):
    voc_at(tmp_path, "1", "2", xml="annotations")
    write(tmp_path / "ImageSets" / list_file, "1")
    for path in (tmp_path, tmp_path / "annotations"):
        found = recognise(path)
        assert list(found.splits) == ["train"]
        assert f"lists that are not used: ImageSets/{list_file};" in found.notes[0]


def test_empty_lists_and_folders_are_left_out_and_said(tmp_path):
    voc_at(tmp_path / "a", "1")
    write(tmp_path / "a" / "ImageSets" / "Main" / "train.txt", "1")
    write(tmp_path / "a" / "ImageSets" / "Main" / "test.txt", "\ufeff\n \r\n")
    found = recognise(tmp_path / "a")
    assert list(found.splits) == ["train"]
    assert found.notes == ["ImageSets/Main/test.txt is empty: left out"]
    voc_at(tmp_path / "b", "1", xml="train", images="train")
    (tmp_path / "b" / "valid").mkdir()
    found = recognise(tmp_path / "b")
    assert list(found.splits) == ["train"]
    assert found.notes == ["the folder valid has no annotations: left out"]


@pytest.mark.parametrize(
    ("xml", "images"),
    [
        ("{0}", "{0}"),
        ("{0}/annotations", "{0}/images"),
        ("Annotations/{0}", "JPEGImages/{0}"),
        ("annotations/{0}", "images/{0}"),
        ("Annotations/{0}", "pictures/{0}"),
        ("{0}/xml", "{0}"),
    ],
)
def test_folders_of_splits(tmp_path, xml, images):
    for split, name in (("train", "1"), ("Val", "2"), ("test", "1")):
        voc_at(tmp_path, name, xml=xml.format(split), images=images.format(split))
    found = recognise(tmp_path)
    assert (list(found.splits), found.notes) == (["train", "val", "test"], [])
    for split, name in (("train", "train/"), ("val", "Val/"), ("test", "test/")):
        (file,) = files_of(found, split)
        path = found.image_folder(split) / file
        assert path.is_file()
        assert name in path.as_posix()


def test_two_folders_of_one_split_are_an_error(tmp_path):
    for split in ("train", "valid", "val"):
        voc_at(tmp_path, "1", xml=split, images=split)
    with pytest.raises(DataError, match="two folders for val: val and valid"):
        recognise(tmp_path)


def test_images_where_the_user_says(tmp_path, tiny_coco):
    away = tmp_path / "away"
    voc_at(tmp_path / "a", "1", images="../away")
    with pytest.raises(DataError, match="no image belongs to") as error:
        recognise(tmp_path / "a")
    assert "--images" in error.value.hint
    found = recognise(tmp_path / "a", away)
    assert found.image_folder("train") / files_of(found, "train")[0] == away / "1.jpg"
    file = tmp_path / "train.json"
    shutil.copy(tiny_coco / "annotations" / "instances_train2017.json", file)
    found = recognise(file, tiny_coco / "train2017")
    assert found.image_folder("train") == tiny_coco / "train2017"
    assert recognise(file, tmp_path / "a").splits["train"]["data_prefix"] == {"img": "a"}
    with pytest.raises(UsageError, match="folder of images not found"):
        recognise(file, tmp_path / "none")


def test_of_yolo_the_images_are_not_to_be_named(bccd_yolo):
    with pytest.raises(UsageError, match="names its images itself"):
        recognise(bccd_yolo, bccd_yolo)


def test_xml_of_other_kinds_is_not_taken_for_voc(tmp_path, tiny_coco):
    shutil.copytree(tiny_coco, tmp_path / "a")
    write(tmp_path / "a" / "project.xml", "<project/>")
    assert recognise(tmp_path / "a").format == "COCO"
    write(tmp_path / "b" / "a.xml", "no XML")
    write(tmp_path / "b" / "a.jpg")
    with pytest.raises(DataError, match=r"a.xml:1: not XML"):
        recognise(tmp_path / "b").read("train")


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.xml", "ImageSets"])
def test_pipes_among_the_files(tmp_path, name):
    voc_at(tmp_path, "1")
    os.mkfifo(tmp_path / name)
    os.mkfifo(tmp_path / "Annotations" / "0.xml")
    assert list(recognise(tmp_path).splits) == ["train"]


def labelled(root, image, row="0 0.5 0.5 0.5 0.5"):
    """An image of 8 pixels and its labels, in folders images and labels or beside each other."""
    file = root / f"{image}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file)
    write(root / f"{image.replace('images', 'labels')}.txt", row)


@pytest.mark.parametrize(
    ("images", "names", "splits"),
    [
        (["images/a"], "classes.txt", ["train"]),  # Label Studio
        (["images/train/a", "images/val/b"], "classes.txt", ["train", "val"]),
        (["train/images/a", "valid/images/b"], "classes.txt", ["train", "val"]),
        (["a"], "classes.txt", ["train"]),  # labelImg
        (["images/a"], "labels/classes.txt", ["train"]),
        (["images/train/a", "images/test/b"], "labels/train/classes.txt", ["train", "test"]),
        (["train/a", "valid/b"], "train/_darknet.labels", ["train", "val"]),  # Roboflow
        (["obj_train_data/a"], "obj.names", ["train"]),
    ],
)
def test_yolo_without_a_yaml_file(tmp_path, images, names, splits):
    for image in images:
        labelled(tmp_path, image)
    write(tmp_path / names, "cat\ndog\n\n")
    for path in (tmp_path, tmp_path / names):
        found = recognise(path)
        assert (found.format, list(found.splits)) == ("YOLO", splits)
        for split, image in zip(splits, images, strict=True):
            content = found.read(split)
            assert [one["name"] for one in content["categories"]] == ["cat", "dog"]
            assert len(content["annotations"]) == len(content["images"]) == 1
            file = found.image_folder(split) / content["images"][0]["file_name"]
            assert file == tmp_path / f"{image}.png"
            assert ".." not in file.parts


def test_yolo_of_cvat(tmp_path):
    labelled(tmp_path, "obj_train_data/a")
    labelled(tmp_path, "obj_valid_data/b")
    write(tmp_path / "obj.names", "cat\n")
    text = "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write(tmp_path / "obj.data", f"{text}backup = backup/\n")
    write(tmp_path / "train.txt", "data/obj_train_data/a.png\n")
    write(tmp_path / "valid.txt", "data/obj_valid_data/b.png\n")
    found = recognise(tmp_path)
    assert files_of(found, "train") == ["obj_train_data/a.png"]
    assert files_of(found, "val") == ["obj_valid_data/b.png"]
    write(tmp_path / "obj.data", text.replace("= 1", "= 3"))
    with pytest.raises(DataError, match="1 names, 1 different ones, and nc is '3'"):
        recognise(tmp_path)


def test_names_without_labels_are_no_yolo(tmp_path, tiny_coco):
    shutil.copytree(tiny_coco, tmp_path / "a")
    write(tmp_path / "a" / "classes.txt", "cat\n")
    assert recognise(tmp_path / "a").format == "COCO"
    write(tmp_path / "b" / "classes.txt", "cat\n")
    write(tmp_path / "b" / "a.png")
    with pytest.raises(DataError, match="no data set that fldet knows"):
        recognise(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\n\ndog\n", "classes.txt:2: there is no name"),
        ("", "classes.txt:1: there is no name"),
        ("cat\ncat\n", "2 names, 1 different"),
    ],
)
def test_malformed_names(tmp_path, text, message):
    labelled(tmp_path, "images/a")
    write(tmp_path / "classes.txt", text)
    with pytest.raises(DataError, match=message):
        recognise(tmp_path)


def test_names_that_differ_between_splits_are_an_error(tmp_path):
    for split, names in (("train", "cat\ndog"), ("valid", "dog\ncat")):
        labelled(tmp_path, f"{split}/a")
        write(tmp_path / split / "_darknet.labels", names)
    with pytest.raises(DataError, match=r"not the same in train/_darknet.labels, valid/"):
        recognise(tmp_path)


def test_empty_splits_of_yolo_and_coco_are_noted(tmp_path, roboflow):
    labelled(tmp_path, "images/train/a")
    (tmp_path / "images" / "test").mkdir()
    write(tmp_path / "val.txt", "\n")
    text = "train: images/train\nval: val.txt\ntest: images/test\nnames: [cat]"
    write(tmp_path / "data.yaml", text)
    found = recognise(tmp_path)
    assert list(found.splits) == ["train"]
    assert found.notes == [
        f"the {s!r} of data.yaml has no image: left out" for s in ("val", "test")
    ]
    file = roboflow / "valid" / "_annotations.coco.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": [], "annotations": []}))
    found = recognise(roboflow)
    assert list(found.splits) == ["train"]
    assert found.notes == ["valid/_annotations.coco.json lists no image: left out"]


@pytest.mark.parametrize("supercategory", ["none", None, "", "missing"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_group_that_has_the_name_of_a_class(tmp_path, tiny_coco, supercategory, place):
    content = json.loads((tiny_coco / "annotations" / "instances_val2017.json").read_text())
    first = content["categories"][0]["name"]
    for category in content["categories"]:
        category["supercategory"] = first
    group = {"id": 0, "name": first, "supercategory": supercategory}
    if supercategory == "missing":
        del group["supercategory"]
    content["categories"].insert(place, group)
    write(tmp_path / "val.json", json.dumps(content))
    found = recognise(tmp_path / "val.json", tiny_coco / "val2017")
    assert used_classes([found.read("val")]) == (("circle", "square"), ())
    data = CocoDataset(
        **{key: value for key, value in found.options("val").items() if key != "type"}
    )
    assert data.metainfo["classes"] == ("circle", "square")
    content["categories"][place]["id"] = 7
    content["categories"][place]["supercategory"] = "other"
    write(tmp_path / "val.json", json.dumps(content))
    with pytest.raises(DataError, match="two categories have the same id or name"):
        CocoDataset(ann_file=str(tmp_path / "val.json"))


def test_what_a_user_should_know(tmp_path):
    voc_at(tmp_path, "1", "2", "3")
    for name, lines in (("train", "1\n2"), ("val", "2\n3"), ("test", "2\n3"), ("other", "1")):
        write(tmp_path / "ImageSets" / "Main" / f"{name}.txt", lines)
    found = recognise(tmp_path)
    contents = {split: found.read(split) for split in found.splits}
    assert oddities(found, contents) == [
        "lists that are not used: ImageSets/Main/other.txt",
        "1 image both in train and in val",
        "1 image both in train and in test",
        "2 images both in val and in test",
    ]
