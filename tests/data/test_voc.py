import json

import pytest

from fldet.data import CocoDataset, VOCDataset
from fldet.errors import DataError

OBJECT = """<object><name>{name}</name>{more}<part><name>head</name></part>
<bndbox><xmin>{x1}</xmin><ymin>11</ymin><xmax>31</xmax><ymax>41</ymax></bndbox></object>"""


def xml(*objects, size="<size><width>64</width><height>48</height></size>", filename="a.jpg"):
    return (
        f"<annotation>\n<filename>{filename}</filename>\n{size}\n{''.join(objects)}\n</annotation>"
    )


def one(name="cat", x1="1", more=""):
    return OBJECT.format(name=name, x1=x1, more=more)


def plain(folder, **options):
    """A folder of XML files with images beside them."""
    return VOCDataset(ann_file=str(folder), data_prefix={"img": str(folder)}, **options)


def instances(dataset):
    return [dataset.get_data_info(i)["instances"] for i in range(len(dataset))]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_blood_cells_are_the_same_as_from_the_coco_file(bccd, split):
    """The file was converted by another hand, and lacks two boxes without area."""
    classes = {"classes": ("RBC", "WBC", "Platelets")}
    ours = VOCDataset(
        data_root=str(bccd / "BCCD"),
        ann_file=f"ImageSets/Main/{split}.txt",
        data_prefix={"img": "JPEGImages"},
        metainfo=classes,
    )
    theirs = CocoDataset(
        data_root=str(bccd),
        ann_file=f"annotations/{split}.json",
        data_prefix={"img": "BCCD/JPEGImages"},
        metainfo=classes,
    )
    assert instances(ours) == instances(theirs)
    keys = ("img_path", "width", "height")
    assert [[ours[i][k] for k in keys] for i in range(len(ours))] == [
        [theirs[i][k] for k in keys] for i in range(len(theirs))
    ]


def test_the_truth_lacks_the_box_without_area(bccd):
    options = {"data_root": str(bccd / "BCCD"), "ann_file": "ImageSets/Main/train.txt"}
    read, truth = VOCDataset.read(options), VOCDataset.read_truth(options)
    left_out = [one for one in read["annotations"] if one not in truth["annotations"]]
    assert [one["bbox"][2:] for one in left_out] == [[0, 0]]
    coco = {"ann_file": str(bccd / "annotations" / "train.json")}
    assert CocoDataset.read_truth(coco) == CocoDataset.read(coco)


def test_real_voc_has_its_classes_and_difficult_objects(voc_mini):
    """The counts are those of the data's README: 74 objects in training, 32 more are difficult."""
    data = VOCDataset(
        data_root=str(voc_mini / "VOCdevkit" / "VOC2007"),
        ann_file="ImageSets/Main/train.txt",
        data_prefix={"img": "JPEGImages"},
    )
    assert len(data.metainfo["classes"]) == 20
    assert data.metainfo["classes"][:2] == ("aeroplane", "bicycle")
    flags = [box["ignore_flag"] for boxes in instances(data) for box in boxes]
    assert (len(data), flags.count(0), flags.count(1)) == (22, 74, 32)


def test_agrees_with_mmdetection(voc_mini):
    from mmdet.datasets import VOCDataset as Theirs

    root = voc_mini / "VOCdevkit" / "VOC2007"
    theirs = Theirs(
        data_root=str(root),
        ann_file="ImageSets/Main/test.txt",
        data_prefix={"sub_data_root": ""},
        test_mode=True,
    )
    ours = VOCDataset(
        data_root=str(root),
        ann_file="ImageSets/Main/test.txt",
        data_prefix={"img": "JPEGImages"},
        test_mode=True,
    )
    assert instances(ours) == instances(theirs)


def test_pixels_count_from_one_and_sizes_are_as_in_the_file(tmp_path):
    (tmp_path / "a.xml").write_text(xml(one(x1="1"), one("dog", "6.5", "<difficult>1</difficult>")))
    data = plain(tmp_path)
    assert data.metainfo["classes"] == ("cat", "dog")
    info = data.get_data_info(0)
    assert info["instances"] == [
        {"bbox": [0, 10, 30, 40], "bbox_label": 0, "ignore_flag": 0},
        {"bbox": [5.5, 10, 30, 40], "bbox_label": 1, "ignore_flag": 1},
    ]
    assert (info["width"], info["height"]) == (64, 48)
    assert info["img_path"] == str(tmp_path / "a.jpg")


def test_an_image_of_the_same_stem_goes_before_the_one_named(tmp_path):
    (tmp_path / "b.xml").write_text(xml(one(), filename="old.jpg"))
    (tmp_path / "b.png").write_bytes(b"")
    assert plain(tmp_path).get_data_info(0)["img_path"] == str(tmp_path / "b.png")


def test_without_a_size_that_of_the_image_is_taken(tmp_path, tiny_coco):
    (tmp_path / "0.xml").write_text(xml(one(), size=""))
    data = VOCDataset(ann_file=str(tmp_path), data_prefix={"img": str(tiny_coco / "val2017")})
    assert data.get_data_info(0)["width"] == 64


def test_a_class_may_be_missing_in_a_split_but_not_everywhere(tmp_path):
    (tmp_path / "a.xml").write_text(xml(one()))
    (tmp_path / "b.xml").write_text(xml(one("dog")))
    (tmp_path / "ImageSets").mkdir()
    names = tmp_path / "ImageSets" / "a.txt"
    names.write_text("a  1\n\n")
    prefix = {"img": str(tmp_path), "xml": str(tmp_path)}
    options = {"ann_file": str(names), "data_prefix": prefix}
    data = VOCDataset(**options, metainfo={"classes": ("dog", "cat")})
    assert instances(data)[0][0]["bbox_label"] == 1
    with pytest.raises(DataError, match="class 'cta' is in no XML file") as error:
        VOCDataset(**options, metainfo={"classes": ("cta",)})
    assert "did you mean cat?" in str(error.value)
    with pytest.raises(DataError, match="class 'horse' is in no XML file"):
        VOCDataset(**options, metainfo={"classes": ("horse",)})


def test_a_folder_of_its_own_may_lack_a_class(tmp_path, caplog):
    (tmp_path / "a.xml").write_text(xml(one()))
    data = VOCDataset(ann_file=str(tmp_path), metainfo={"classes": ("dog", "cat", "cats")})
    assert instances(data)[0][0]["bbox_label"] == 1
    assert [record.args[0] for record in caplog.records] == ["dog", "cats"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<object>", r"a.xml:2: not XML \(column 8\)"),
        (xml(one(), "\n" + one(x1="nan")), "a.xml:6: object 2 has no box of four numbers"),
        (xml(one(x1="")), "a.xml:4: object 1 has no box of four numbers"),
        (xml("<object></object>"), "a.xml:4: object 1 has no <name>"),
        (xml(one(more="<difficult>no</difficult>")), "a.xml:4: object 1 has no box"),
        (xml(one(), size=""), "a.jpg: image cannot be read: No such file"),
    ],
)
def test_malformed_files_are_named_with_the_line(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        plain(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="has no image"):
        plain(tmp_path)
    (tmp_path / "a.txt").write_text("x\ny\n")
    (tmp_path / "x.xml").write_text(xml(one()))
    with pytest.raises(DataError, match=r"a.txt: entry 2 is 'y', and there is no .*y.xml"):
        VOCDataset(ann_file=str(tmp_path / "a.txt"), data_prefix={"img": str(tmp_path)})
    with pytest.raises(DataError, match=r"cannot read .*none.txt"):
        VOCDataset(ann_file=str(tmp_path / "none.txt"))


def test_the_content_is_that_of_a_coco_file(voc_mini):
    root = voc_mini / "VOCdevkit" / "VOC2007"
    options = {
        "data_root": str(root),
        "ann_file": "ImageSets/Main/val.txt",
        "data_prefix": {"img": "JPEGImages"},
    }
    content = json.loads(json.dumps(VOCDataset.read(options)))
    assert len(content["annotations"]) == 65 + 46
    assert all(box["iscrowd"] == box.get("difficult", 0) for box in content["annotations"])
