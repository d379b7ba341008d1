"""Files of other tools, read as they are: what comes out, and what is refused."""

import json
import logging
import math

import cv2
import numpy as np
import pytest

from fldet.data.convert import convert
from fldet.data.formats.recognise import recognise
from fldet.data.imported.dataset import ImageNames
from fldet.data.imported.table import parse_columns
from fldet.errors import DataError, UsageError
from fldet.registry import DATASETS

SIZE = (200, 100)  # width, height
BOXES = {"cat": [20, 10, 60, 50], "dog": [100.5, 30, 180, 90.25]}  # x1, y1, x2, y2


@pytest.fixture
def folder(tmp_path):
    """A folder with the images a.jpg and b.jpg in ``images``."""
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), np.zeros((*SIZE[::-1], 3), np.uint8))
    return tmp_path


def read(path, split="train", **options):
    """Returns boxes (x1, y1, x2, y2) by class of each image of a split."""
    found = recognise(path, **options)
    content = found.read(split)
    names = {one["id"]: one["name"] for one in content["categories"]}
    boxes = {image["file_name"]: [] for image in content["images"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    assert all((one["width"], one["height"]) == SIZE for one in content["images"])
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        assert one["area"] == pytest.approx(w * h)
        crowd = ("ignored",) * one["iscrowd"]
        corners = [round(value, 3) for value in (x, y, x + w, y + h)]
        boxes[files[one["image_id"]]].append((names[one["category_id"]], corners, *crowd))
    return boxes


def cvat(
    shapes='<box label="cat" xtl="20" ytl="10" xbr="60" ybr="50" occluded="0"/>', name="a.jpg"
):
    return (
        "<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version><meta><task>"
        "<labels><label><name>dog</name></label><label><name>cat</name></label></labels></task>"
        f'</meta><image id="0" name="{name}" width="200" height="100">{shapes}</image>'
        '<image id="1" name="b.jpg" width="200" height="100"></image></annotations>'
    )


def rectangle(label, corners, **more):
    """Returns a labelled box of Label Studio's."""
    x1, y1, x2, y2 = corners
    w, h = SIZE
    value = {"x": 100 * x1 / w, "y": 100 * y1 / h, "rotation": 0, "rectanglelabels": [label]}
    value |= {"width": 100 * (x2 - x1) / w, "height": 100 * (y2 - y1) / h, **more}
    size = {"original_width": w, "original_height": h, "image_rotation": 0}
    return {"type": "rectanglelabels", "value": value, **size}


def task(*results, image="/data/upload/1/0a1b2c3d-a.jpg", **more):
    """Returns a task of Label Studio's JSON."""
    made = {"completed_by": 1, "was_cancelled": False, "result": [*results], **more}
    return {"id": 1, "data": {"image": image}, "annotations": [made]}


def shape(label, points, kind="rectangle"):
    """Returns a shape of labelme's."""
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, "group_id": None}


def labelme(*shapes, image="a.jpg"):
    """Returns the content of a file of labelme's."""
    size = {"imageWidth": SIZE[0], "imageHeight": SIZE[1]}
    return {"version": "5.5.0", "shapes": [*shapes], "imagePath": f"..\\images\\{image}", **size}


BOTH = [("cat", BOXES["cat"]), ("dog", BOXES["dog"])]
ROWS = {name: ",".join(map(str, box)) for name, box in BOXES.items()}
KITTI = "{} 0.00 0 -1.58 {} 1.6 1.7 3.7 -0.6 1.7 46 -1.5\n"


def test_cvat(folder):
    shapes = "".join(
        f'<box label="{name}" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}" occluded="1" source="manual">'
        '<attribute name="age">3</attribute></box>'
        for name, (a, b, c, d) in BOTH
    )
    (folder / "annotations.xml").write_text(cvat(shapes))
    for path in (folder, folder / "annotations.xml"):
        assert read(path) == {"a.jpg": BOTH, "b.jpg": []}
    options = recognise(folder).options("train")
    assert DATASETS.get(options["type"]).class_names(options) == (
        "dog",
        "cat",
    )  # as they are listed


@pytest.mark.parametrize(
    ("text", "corners"),
    [
        ('<polygon label="cat" points="20,10;60,30;40,50"/>', BOXES["cat"]),
        ('<ellipse label="cat" cx="40" cy="30" rx="20" ry="20"/>', BOXES["cat"]),
        ('<ellipse label="cat" cx="40" cy="30" rx="20" ry="10" rotation="90"/>', [30, 10, 50, 50]),
        ('<mask label="cat" left="20" top="10" width="40" height="40" rle="1, 2"/>', BOXES["cat"]),
        (
            '<box label="cat" xtl="30" ytl="20" xbr="50" ybr="40" rotation="45"/>',
            [
                round(40 + sign * 10 * math.sqrt(2) - (10 if k % 2 else 0), 3)
                for k, sign in enumerate((-1, -1, 1, 1))
            ],
        ),
    ],
)
def test_shapes_of_cvat_become_the_boxes_around_them(folder, text, corners):
    (folder / "annotations.xml").write_text(cvat(text))
    assert read(folder)["a.jpg"] == [("cat", corners)]


def test_what_is_no_box_is_counted(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    (folder / "annotations.xml").write_text(
        cvat('<points label="cat" points="1,2"/><tag label="x"/>')
    )
    assert read(folder)["a.jpg"] == []
    assert "left out: points: 1, tag: 1" in caplog.text


def test_label_studio(folder):
    tasks = [
        task(*(rectangle(*one) for one in BOTH)),
        task(image="/data/local-files/?d=project%2Fb.jpg"),
        {"id": 3, "data": {"image": "s3://bucket/c.jpg"}, "annotations": []},
    ]
    (folder / "project-1.json").write_text(json.dumps(tasks))
    for path in (folder, folder / "project-1.json"):
        assert read(path) == {"a.jpg": BOTH, "b.jpg": []}


def test_label_studio_min(folder):
    part = rectangle("cat", BOXES["cat"])
    flat = {**part.pop("value"), **part}
    (folder / "min.json").write_text(json.dumps([{"id": 1, "image": "a.jpg", "label": [flat]}]))
    assert read(folder) == {"a.jpg": [("cat", BOXES["cat"])]}


def test_other_shapes_and_annotations_of_label_studio(folder):
    polygon = rectangle("cat", BOXES["cat"])
    polygon["value"] = {"points": [[10, 10], [30, 30], [20, 50]], "polygonlabels": ["cat"]}
    ellipse = rectangle("cat", BOXES["cat"])
    ellipse["value"] = {"x": 20, "y": 30, "radiusX": 10, "radiusY": 20, "ellipselabels": ["cat"]}
    turned = rectangle("dog", [60, 10, 100, 30], rotation=90)  # clockwise, about its first corner
    one = task(polygon, ellipse, turned)
    skipped = {"was_cancelled": True, "result": [rectangle("dog", BOXES["dog"])]}
    truth = {"ground_truth": True, "result": one["annotations"][0]["result"]}
    one["annotations"] = [skipped, {"result": []}, truth]
    (folder / "a.json").write_text(json.dumps([one]))
    assert read(folder)["a.jpg"] == [
        ("cat", BOXES["cat"]),
        ("cat", BOXES["cat"]),
        ("dog", [40, 10, 60, 50]),
    ]


def test_labelme(folder):
    x1, y1, x2, y2 = BOXES["cat"]
    shapes = [
        shape("cat", [[x2, y1], [x1, y2]]),  # drawn from another corner
        shape("cat", [[x1, y1], [x2, y1], [40, y2]], "polygon"),
        shape("cat", [[40, 30], [40, 50]], "circle"),
        shape("cat", [[1, 1]], "point"),
    ]
    (folder / "labels").mkdir()
    (folder / "labels" / "a.json").write_text(json.dumps(labelme(*shapes)))
    (folder / "labels" / "b.json").write_text(json.dumps(labelme(image="b.jpg")))
    expected = {"a.jpg": [("cat", BOXES["cat"])] * 3, "b.jpg": []}
    assert read(folder) == expected
    assert read(folder / "labels", images=folder / "images") == expected


def test_labelme_with_splits(folder):
    for split, name in (("train", "a"), ("val", "b")):
        (folder / split).mkdir()
        (folder / "images" / f"{name}.jpg").rename(folder / split / f"{name}.jpg")
        content = labelme(shape("cat", [[20, 10], [60, 50]]), image=f"{name}.jpg")
        (folder / split / f"{name}.json").write_text(json.dumps(content))
    assert {split: [*read(folder, split)] for split in ("train", "val")} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }


def test_kitti(folder):
    (folder / "images").rename(folder / "image_2")
    (folder / "label_2").mkdir()
    rows = [KITTI.format(name.title(), " ".join(map(str, box))) for name, box in BOTH]
    rows.append(KITTI.format("DontCare", "0 0 5 5"))
    (folder / "label_2" / "a.txt").write_text("".join(rows))
    (folder / "label_2" / "b.txt").write_text("\n")
    assert read(folder) == {
        "a.jpg": [
            *((name.title(), box) for name, box in BOTH),
            *((name, [0, 0, 5, 5], "ignored") for name in ("Cat", "Dog")),
        ],
        "b.jpg": [],
    }


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        (
            "filename,width,height,class,xmin,ymin,xmax,ymax",
            [f"a.jpg,200,100,{name},{row}" for name, row in ROWS.items()],
        ),
        (
            "Image Path;Label;X1;Y1;X2;Y2",
            [f"C:\\x\\a.jpg;{name};{row}".replace(",", ";") for name, row in ROWS.items()],
        ),
        (
            "image_id,label_name,left,top,width,height",
            ["a,cat,20,10,40,40", "a,dog,100.5,30,79.5,60.25"],
        ),
        ("x,y,w,h,name,file", ["20,10,40,40,cat,images/a.jpg", "100.5,30,79.5,60.25,dog,a.jpg"]),
        (f"a.jpg,{ROWS['cat']},cat", [f"a.jpg,{ROWS['dog']},dog"]),
    ],
)
def test_tables(folder, head, rows):
    (folder / "boxes.csv").write_text("\n".join([head, *rows]) + "\n")
    for path in (folder, folder / "boxes.csv"):
        assert read(path) == {"a.jpg": BOTH}


def test_a_table_with_columns_of_other_names_and_an_image_without_boxes(folder):
    lines = ["photo,kind,l,t,wide,high", "a.jpg,cat,20,10,40,40", "b.jpg,,,,,"]
    (folder / "boxes.csv").write_text("\n".join(lines))
    columns = "image=photo label=kind left=l, top=t width=wide height=high"
    expected = {"a.jpg": [("cat", BOXES["cat"])], "b.jpg": []}
    assert read(folder / "boxes.csv", columns=columns) == expected
    with pytest.raises(
        DataError, match="no column is known to have the image and the label"
    ) as error:
        recognise(folder / "boxes.csv", columns="xmin=l ymin=t xmax=wide ymax=high")
    assert "--columns" in error.value.hint


@pytest.mark.parametrize("text", ["imag=a", "image", "image=", "width"])
def test_other_columns_are_refused(text):
    with pytest.raises(UsageError, match="--columns"):
        parse_columns(text)


def test_tables_of_splits(folder):
    for split, name in (("train", "a"), ("test", "b")):
        line = f"{name}.jpg,cat,{ROWS['cat']}"
        (folder / f"{split}_labels.csv").write_text(f"filename,class,xmin,ymin,xmax,ymax\n{line}\n")
    assert [*recognise(folder).splits] == ["train", "test"]
    assert read(folder, "test") == {"b.jpg": [("cat", BOXES["cat"])]}
    (folder / "more.csv").write_text("filename,class,xmin,ymin,xmax,ymax\n")
    with pytest.raises(DataError, match="several files of CSV"):
        recognise(folder)


def test_coco_of_cvat(folder):
    (folder / "images" / "default").mkdir()
    (folder / "images" / "a.jpg").rename(folder / "images" / "default" / "a.jpg")
    (folder / "annotations").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [20, 10, 40, 40],
                "area": 1600,
                "iscrowd": 0,
            }
        ],
        "categories": [{"id": 1, "name": "cat", "supercategory": ""}],
    }
    (folder / "annotations" / "instances_default.json").write_text(json.dumps(content))
    assert recognise(folder).format == "COCO"
    assert read(folder) == {"a.jpg": [("cat", BOXES["cat"])]}


# --- what is wrong ---


BAD = {
    "cvat": [
        ("a.xml", cvat('<box label="cat" xtl="20" ytl="x" xbr="60" ybr="50"/>'), "no 4 numbers"),
        ("a.xml", cvat('<box xtl="20" ytl="1" xbr="60" ybr="50"/>'), "the label is None"),
        ("a.xml", cvat('<polygon label="cat" points="1,2;3"/>'), "points of a polygon"),
        ("a.xml", cvat(name=""), "has no name"),
        (
            "a.xml",
            "<annotations><meta/><track id='0' label='car'></track></annotations>",
            "a video",
        ),
    ],
    "label studio": [
        ("a.json", json.dumps([task(rectangle("cat", [1, 2, 3, 4], x="a"))]), "a box is no 4"),
        ("a.json", json.dumps([task(rectangle(5, [1, 2, 3, 4]))]), "the label is 5"),
        (
            "a.json",
            json.dumps([{**task(rectangle("cat", [1, 2, 3, 4])), "data": {"t": "x"}}]),
            "names no image",
        ),
        (
            "a.json",
            json.dumps([task({"value": {"x": 1, "rectanglelabels": ["cat"]}})]),
            "does not say the size",
        ),
        ("a.json", json.dumps([3, task()]), "task 1 is 3"),
    ],
    "labelme": [
        ("a.json", json.dumps(labelme(shape("cat", [[1, "x"], [2, 3]]))), "points of a rectangle"),
        ("a.json", json.dumps(labelme(shape("cat", [[1, 2], 3]))), "points of a rectangle"),
        ("a.json", json.dumps(labelme(shape("", [[1, 2], [3, 4]]))), "the label is ''"),
        ("a.json", '{"imagePath": "a", "shapes": {"points": 1}}', "no list 'shapes'"),
    ],
    "kitti": [
        ("a.txt", KITTI.format("Car", "1 2 3 4") + "Car 1 2\n", r"a.txt:2: 3 values"),
        ("a.txt", KITTI.format("Car", "1 2 3 4") + KITTI.format("Car", "1 2 x 4"), "no 4 numbers"),
    ],
    "csv": [
        ("a.csv", "file,label,x1,y1,x2,y2\na.jpg,cat,1,2,3\n", "a.csv:2: 5 values"),
        ("a.csv", "file,label,x1,y1,x2,y2\na.jpg,cat,1,2,3,nan\n", "a.csv:2: the box is no 4"),
        ("a.csv", "file,label,x1,y1,x2,y2\n,cat,1,2,3,4\n", "a.csv:2 names no image"),
        ("a.csv", "file,label,x1,y1,x2,y2\na.jpg,,1,2,3,4\n", "the label is ''"),
        ("a.csv", "file,kind,x1,y1,x2,y2\n", "no column is known to have the label"),
    ],
}


@pytest.mark.parametrize(
    ("file", "text", "message"), [one for some in BAD.values() for one in some]
)
def test_malformed_files_are_named(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        recognise(folder, folder / "images").read("train")


def test_data_check_lists_every_malformed_file(folder, fldet):
    (folder / "labels").mkdir()
    for name in ("a", "b"):
        content = labelme(shape("", [[1, 2], [3, 4]]), image=f"{name}.jpg")
        (folder / "labels" / f"{name}.json").write_text(json.dumps(content))
    done = fldet("data", "check", folder, "--images", folder / "images")
    assert done.returncode == 1
    assert "malformed file: 2" in done.stdout


def test_an_image_that_is_missing(folder):
    (folder / "boxes.csv").write_text("file,label,x1,y1,x2,y2\nc.jpg,cat,1,2,3,4\n")
    with pytest.raises(DataError, match=r"no folder in .* has its images, such as 'c.jpg'"):
        recognise(folder)
    found = recognise(folder, folder / "images")
    with pytest.raises(DataError, match=r"there is no image 'c\.jpg'"):
        found.read("train")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("/home/me/set/images/a.jpg", "a.jpg"),
        ("D:\\set\\sub\\c.png", "sub/c.png"),
        ("c", "sub/c.png"),  # without an ending
        ("c.jpeg", "sub/c.png"),
        ("d.png", None),  # two have the name
        ("sub/d.png", "sub/d.png"),
        ("../secret.png", None),
        ("{outside}", None),
        ("", None),
    ],
)
def test_names_of_images(folder, name, found):
    images = folder / "images"
    (images / "sub").mkdir()
    for file in ("sub/c.png", "sub/d.png", "d.png", "../secret.png"):
        (images / file).touch()
    (images / "d.png").rename(images / "e.png")
    (images / "other").mkdir()
    (images / "other" / "d.png").touch()
    assert ImageNames(images).find(name.format(outside=folder / "secret.png")) == found


def test_convert_and_init(folder, fldet):
    (folder / "annotations.xml").write_text(cvat())
    done = convert(folder, folder / "all.json")
    assert (done.images, done.boxes) == (2, 1)
    assert read(folder / "all.json") == {"a.jpg": [("cat", BOXES["cat"])], "b.jpg": []}
    (folder / "all.json").unlink()
    out = folder / "config.py"
    done = fldet("init", folder, "--out", out, "--model", "small", "--val", 0)
    assert done.returncode == 0, done.stderr
    assert "type='fldet.ImportedDataset'" in out.read_text()
    done = fldet("data", "check", out)
    assert (done.returncode, "1 annotations" in done.stdout) == (0, True), done.stdout
