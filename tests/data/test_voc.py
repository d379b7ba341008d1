import json
import os

import pytest
from PIL import Image

from fldet.data.coco import CocoDataset
from fldet.data.voc import VOCDataset
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
        (xml(one(x1="1_0")), "a.xml:4: object 1 has no box of four numbers"),
        (xml(one(x1="1e300")), "a.xml:4: object 1 has no box of four numbers"),
        (xml(one(more="<difficult>?</difficult>")), "a.xml:4: object 1 has <difficult>'.'</diff"),
        (xml(one(), size=""), "a.xml says no size of its image, and there is no .*a.jpg"),
        (f"<annotations>{one()}</annotations>", "a.xml: not of Pascal VOC: .* a 'annotations'"),
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
    with pytest.raises(DataError, match=r"a.txt:2: 'y', and no XML file of .* has that name"):
        VOCDataset(ann_file=str(tmp_path / "a.txt"), data_prefix={"img": str(tmp_path)})
    with pytest.raises(DataError, match=r"list of images not found: .*none.txt"):
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


def data_of(root, names, list_text, **options):
    """A data set with a list; what each XML file is called, its image says by its width."""
    for number, name in enumerate(names):
        file = root / "Annotations" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(xml(one(), size="", filename="nothing.jpg"))
        image = root / "JPEGImages" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100 + number, 50)).save(image)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    text = list_text if isinstance(list_text, bytes) else list_text.encode()
    (lists / "train.txt").write_bytes(text)
    return VOCDataset(
        ann_file=str(lists / "train.txt"), data_prefix={"img": str(root / "JPEGImages")}, **options
    )


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (["scan", "scan 1", "scan 0"], "scan\nscan 1\nscan 0\n", [0, 1, 2]),
        (["scan", "other"], "scan  1\nother -1\n", [0, 1]),  # the list of a class
        (["scan", "other"], "scan\t0\nother 1", [0, 1]),
        (["scan 2", "2"], "2\nscan 2", [1, 0]),
        (["1", "cam2/1", "cam2/deep/1"], "1\ncam2/1\ncam2/deep/1", [0, 1, 2]),
        (["1", "cam2/1"], "cam2\\\\1", [1]),
        (["a", "b.jpg"], "a.jpg\nb.jpg\n", [0, 1]),
        (["a", "b"], "a.JPG\nJPEGImages/b.png\n", [0, 1]),
        (["a", "cam2/b"], "/home/of/others/VOC/images/a.jpg\nVOC2007/JPEGImages/cam2/b", [0, 1]),
        (["a", "b"], "JPEGImages/b.jpg Annotations/b.xml\n./Annotations/a.xml", [1, 0]),
        (["a", "b"], "\ufeffa\r\n\r\n  b \r\n", [0, 1]),
        (["a", "b"], "a\nb".encode("utf-16"), [0, 1]),
        (["images/a", "a"], "images/a", [0]),
        (["größe 箱"], "größe 箱", [0]),
    ],
)
def test_lines_of_a_list(tmp_path, names, text, expected):
    data = data_of(tmp_path, names, text)
    assert [one["width"] - 100 for one in data.load_data_list()] == expected


def test_an_image_listed_twice_is_taken_once_and_said(tmp_path, caplog):
    data = data_of(tmp_path, ["a", "b"], "a\nb\na.jpg\nJPEGImages/a\n")
    assert [one["width"] for one in data.load_data_list()] == [100, 101]
    assert "2 lines name an image once more" in caplog.text


@pytest.mark.parametrize("line", ["cam3/1", "../1", "x" * 5000, "1 2", "a\0", "1.gif", "/"])
def test_a_line_that_names_no_file_is_an_error_with_its_number(tmp_path, line):
    with pytest.raises(DataError, match=r"train.txt:2: .* no XML file of"):
        data_of(tmp_path, ["1", "2"], f"1\n{line}\n")


def test_a_list_in_another_encoding_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train.txt:2: not UTF-8"):
        data_of(tmp_path, ["1"], b"1\n\xcf\xe4\xd7\xd3")


@pytest.mark.parametrize("folder", ["annotations", "ANNOTATIONS", "annotations/xmls", "xmls"])
def test_the_folder_of_xml_files_may_have_other_names(tmp_path, folder):
    data_of(tmp_path / "a", ["1", "2"], "2")
    (tmp_path / "a" / folder).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / "Annotations").rename(tmp_path / "a" / "moved")
    (tmp_path / "a" / folder).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / "moved").rename(tmp_path / "a" / folder)
    options = {
        "data_root": str(tmp_path / "a"),
        "ann_file": "ImageSets/Main/train.txt",
        "data_prefix": {"img": "JPEGImages"},
    }
    assert [one["file_name"] for one in VOCDataset.read(options)["images"]] == ["2.jpg"]


@pytest.mark.parametrize(
    ("text", "is_difficult"),
    [
        ("0", 0), ("", 0), ("Unspecified", 0), ("False", 0), (" no ", 0), ("0.0", 0), ("-1", 0),
        ("1", 1), ("True", 1), ("YES", 1), ("1.0", 1), ("2", 1),
    ],
)  # fmt: skip
def test_words_for_difficult(tmp_path, text, is_difficult):
    (tmp_path / "a.xml").write_text(xml(one(more=f"<difficult>{text}</difficult>")))
    flags = [box["ignore_flag"] for box in instances(plain(tmp_path))[0]]
    assert flags == [is_difficult]


@pytest.mark.parametrize(("x1", "left"), [(" 12 ", 11), ("12.0", 11), ("1e1", 9), ("12.5", 11.5)])
def test_ways_to_write_a_number(tmp_path, x1, left):
    (tmp_path / "a.xml").write_text(xml(one(x1=x1)))
    assert instances(plain(tmp_path))[0][0]["bbox"][0] == left


def test_swapped_corners_are_left_out_and_counted(tmp_path, caplog):
    (tmp_path / "a.xml").write_text(xml(one(x1="50"), one()))
    assert [len(boxes) for boxes in instances(plain(tmp_path))] == [1]
    assert "box of negative size: 1" in caplog.text


@pytest.mark.parametrize("ending", [".Jpg", ".jpG", ".JPEG", ".TIF", ".wEbP"])
@pytest.mark.parametrize("filename", ["a.jpg", "old.jpg", "C:\\\\data\\\\a.JPG", "", ".", "a"])
def test_endings_of_images_in_any_case(tmp_path, ending, filename):
    (tmp_path / "a.xml").write_text(xml(one(), filename=filename))
    (tmp_path / f"a{ending}").write_bytes(b"")
    assert plain(tmp_path).get_data_info(0)["img_path"] == str(tmp_path / f"a{ending}")


def test_the_named_image_is_found_by_its_stem_too(tmp_path):
    (tmp_path / "0001.xml").write_text(xml(one(), filename="photo.jpg"))
    (tmp_path / "photo.Jpeg").write_bytes(b"")
    assert plain(tmp_path).get_data_info(0)["img_path"] == str(tmp_path / "photo.Jpeg")


def test_a_pipe_is_no_image(tmp_path):
    (tmp_path / "a.xml").write_text(xml(one(), size=""))
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"there is no .*a.jpg"):
        plain(tmp_path)


def test_xml_files_in_folders_count_and_hidden_ones_do_not(tmp_path):
    for name in ("a", "cam/b", ".ipynb_checkpoints/a-checkpoint", "__MACOSX/c", "._a"):
        file = tmp_path / f"{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(xml(one()))
        file.with_suffix(".png").write_bytes(b"")
    (tmp_path / "cam" / "back").symlink_to(tmp_path)
    names = [one["img_path"] for one in plain(tmp_path).load_data_list()]
    assert names == [str(tmp_path / "a.png"), str(tmp_path / "cam" / "b.png")]


def test_objects_in_a_list_of_their_own_and_namespaces(tmp_path):
    text = xml(one("dog")).replace("<object>", "<objects><object>")
    text = text.replace("</object>", "</object></objects>")
    (tmp_path / "a.xml").write_text(text.replace("<annotation>", '<annotation xmlns="urn:a">'))
    assert plain(tmp_path).metainfo["classes"] == ("dog",)
