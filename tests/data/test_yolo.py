import os

import pytest

from fldet.data.coco import CocoDataset
from fldet.data.yolo import YOLODataset
from fldet.errors import DataError


def instances(dataset):
    return [dataset.get_data_info(i)["instances"] for i in range(len(dataset))]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_blood_cells_are_the_same_as_from_the_coco_file(bccd, bccd_yolo, split):
    ours = YOLODataset(data_root=str(bccd_yolo), ann_file="data.yaml", split=split)
    theirs = CocoDataset(
        data_root=str(bccd),
        ann_file=f"annotations/{split}.json",
        data_prefix={"img": "BCCD/JPEGImages"},
    )
    assert ours.metainfo["classes"] == theirs.metainfo["classes"] == ("RBC", "WBC", "Platelets")
    assert len(ours) == len(theirs)
    for mine, other in zip(instances(ours), instances(theirs), strict=True):
        assert [box["bbox_label"] for box in mine] == [box["bbox_label"] for box in other]
        for a, b in zip(mine, other, strict=True):
            assert a["bbox"] == pytest.approx(b["bbox"], abs=2e-3)
    assert ours.get_data_info(0)["width"] == 640


@pytest.fixture
def folder(tmp_path, tiny_coco):
    """Two images of 64 pixels in images/, one label file with a box and a polygon."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "images" / name).symlink_to(tiny_coco / "val2017" / name)
    (tmp_path / "labels" / "0.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0 0 .5 0.25 0.25 0.75\n\n")
    (tmp_path / "data.yaml").write_text("train: images\nnc: 2\nnames: [cat, dog]\n")
    return tmp_path


def dataset(folder, **options):
    return YOLODataset(data_root=str(folder), ann_file="data.yaml", **options)


def test_boxes_polygons_and_images_without_labels(folder):
    data = dataset(folder)
    assert instances(data) == [
        [
            {"bbox": [24, 16, 40, 48], "bbox_label": 1, "ignore_flag": 0},
            {"bbox": [0, 0, 32, 48], "bbox_label": 0, "ignore_flag": 0},
        ],
        [],
    ]
    assert data.get_data_info(1)["img_path"] == str(folder / "images" / "1.png")


def test_a_subset_of_the_classes(folder):
    data = dataset(folder, metainfo={"classes": ("dog",)})
    assert [len(boxes) for boxes in instances(data)] == [1, 0]
    assert instances(data)[0][0]["bbox_label"] == 0
    with pytest.raises(DataError, match="class 'dg' is not in"):
        dataset(folder, metainfo={"classes": ("dg",)})


@pytest.mark.parametrize(
    "text",
    [
        "train: ../images\nnames: {0: cat, 1: dog}",  # Roboflow's
        "path: /somewhere/else\ntrain: [images]\nnames: [cat, dog]",
        "path: .\ntrain: list.txt\nnames: [cat, dog]",
    ],
)
def test_ways_to_name_the_images(folder, text):
    (folder / "data.yaml").write_text(text)
    (folder / "list.txt").write_text("./images/0.png\nimages/1.png\n")
    assert len(dataset(folder)) == 2


@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_names_of_the_validation_split(folder, name):
    (folder / "data.yaml").write_text(f"{name}: images\nnames: [cat, dog]")
    assert len(dataset(folder, split="val")) == 2
    with pytest.raises(DataError, match="has no 'train'"):
        dataset(folder)


def test_labels_beside_the_images(folder):
    flat = folder / "flat"
    (folder / "images").rename(flat)
    (folder / "labels" / "0.txt").rename(flat / "0.txt")
    (folder / "data.yaml").write_text("train: flat\nnames: [cat, dog]")
    assert [len(boxes) for boxes in instances(dataset(folder))] == [2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.1 0.1\n0 0.5 x 0.1 0.1", "0.txt:2: not numbers"),
        ("0 0.5 0.5 0.1", "0.txt:1: 4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "0.txt:1: 6 numbers(.|\n)*no score behind"),
        ("1.5 0.5 0.5 0.1 0.1", "0.txt:1: class 1.5, and"),
        ("-1 0.5 0.5 0.1 0.1", "0.txt:1: class -1, and"),
        ("nan 0.5 0.5 0.1 0.1", "0.txt:1: class nan, and"),
        ("1e400 0.5 0.5 0.1 0.1", "0.txt:1: class 1e400, and"),
        ("0_1 0.5 0.5 0.1 0.1", "0.txt:1: not numbers"),
        ("0 320 240 64 48", "0.txt:1: not all shares(.|\n)*pixels are to be divided"),
        ("0 0.5 0.5 0.1 0.1 0.4 0.4 2 0.6 0.6 1 0.5 0.5 2", "(.|\n)*with key points kpt_shape"),
        ("2 0.5 0.5 0.1 0.1", "0.txt:1: class 2, and .*data.yaml has 2 names"),
        ("0 0.5 0.5 20 10", "0.txt:1: not all shares are from 0 to 1"),
        ("0 0.5 0.5 nan 0.1", "0.txt:1: not all shares"),
    ],
)
def test_malformed_labels_are_named_with_the_line(folder, text, message):
    (folder / "labels" / "0.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        dataset(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", "data.yaml:[12]: not YAML"),
        ("- a", "holds no keys"),
        ("train: images", "'names' is None"),
        ("names: {1: a}", "'names' is {'1': 'a'}"),
        ("names: [a, a]", "2 names, 1 different"),
        ("names: [a]\nnc: 3", "and nc is '3'"),
        ("names: [a]\ntrain: {a: b}", "'train' is {'a': 'b'}"),
        ("names: [a]\ntrain: none", "train is 'none', and there is no .*none"),
        ("names: [a]\ntrain: labels", "train has no image"),
        ("names: [a]\ntrain: labels/0.txt", "0.txt:1: there is no image"),
    ],
)
def test_malformed_data_yaml(folder, text, message):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        dataset(folder)


@pytest.mark.parametrize(
    ("shape", "rows", "boxes"),
    [
        ("[2, 2]", "0 .5 .5 .5 .25 .3 .3 .4 .4\n", [[16, 24, 48, 40]]),
        (
            "[2, 3]",
            "1 .5 .5 .5 .25 .3 .3 2 0 0 0\n0 .5 .5 1 1\n",
            [[16, 24, 48, 40], [0, 0, 64, 64]],
        ),
        ("[17, 3]", f"0 .5 .5 .5 .25 {'1.5 -3 2 ' * 17}", [[16, 24, 48, 40]]),
        ("", "0 .5 .5 .5 .25", [[16, 24, 48, 40]]),
        ("null", "0 .25 .375 .75 .375 .75 .625 .25 .625", [[16, 24, 48, 40]]),  # a turned box
    ],
)
def test_of_poses_the_box_is_taken(folder, shape, rows, boxes):
    (folder / "labels" / "0.txt").write_text(rows)
    (folder / "data.yaml").write_text(f"train: images\nnames: [cat, dog]\nkpt_shape: {shape}\n")
    assert [one["bbox"] for one in instances(dataset(folder))[0]] == boxes


@pytest.mark.parametrize("shape", ["[2]", "17", "[a, 3]", "[0, 2]", "[[2], 2]", "{2: 2}"])
def test_a_malformed_kpt_shape_and_rows_of_another(folder, shape):
    text = "train: images\nnames: [cat, dog]\nkpt_shape: "
    (folder / "data.yaml").write_text(f"{text}{shape}")
    with pytest.raises(DataError, match="'kpt_shape' is"):
        dataset(folder)
    (folder / "data.yaml").write_text(f"{text}[3, 2]")
    (folder / "labels" / "0.txt").write_text("0 .5 .5 .5 .25 .3 .3 .4 .4\n")
    with pytest.raises(DataError, match=r"0.txt:1: 9 numbers\nExpected: 5, or 11 by kpt_shape"):
        dataset(folder)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "images"),
        ("images/train", "images/train"),
        ("images/train", "labels/train"),
        ("Images/train", "Labels/train"),
        ("train/images", "train/LABELS"),
        ("images/a/images", "labels/a/images"),
        ("images/a/images", "images/a/labels"),
        ("flat", "flat"),
    ],
)
def test_places_of_labels(tmp_path, tiny_coco, images, labels):
    for folder in (images, labels):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / images / "0.png").symlink_to(tiny_coco / "val2017" / "0.png")
    (tmp_path / labels / "0.txt").write_text("0 .5 .5 .5 .5")
    (tmp_path / "data.yaml").write_text(f"train: {images}\nnames: [cat]")
    assert [len(boxes) for boxes in instances(dataset(tmp_path))] == [1]


def test_the_root_may_lie_in_a_folder_called_images(tmp_path, folder):
    (tmp_path / "images" / "set" / "flat").mkdir(parents=True)
    root = tmp_path / "images" / "set"
    (root / "flat" / "0.png").symlink_to(folder / "images" / "0.png")
    (root / "flat" / "0.txt").write_text("0 .5 .5 .5 .5")
    (root / "data.yaml").write_text("train: flat\nnames: [cat]")
    assert [len(boxes) for boxes in instances(dataset(root))] == [1]


def test_what_lacks_its_other_half_is_counted(folder, caplog):
    caplog.set_level("INFO")
    for name in ("gone", "classes", "._0"):
        (folder / "labels" / f"{name}.txt").write_text("0 .5 .5 .5 .5")
    (folder / "labels" / "notes.txt").write_text("drawn in May")
    (folder / "labels" / "classes.txt").write_text("cat\ndog\n")
    dataset(folder)
    assert "1 of 2 images have no label file" in caplog.text
    assert "1 label files belong to no image, such as " in caplog.text
    assert "gone.txt" in caplog.text


def test_an_empty_label_file_is_an_image_without_objects(folder, caplog):
    caplog.set_level("INFO")
    for name, data in (("0", b""), ("1", b"\xef\xbb\xbf\r\n \r\n")):
        (folder / "labels" / f"{name}.txt").write_bytes(data)
    assert instances(dataset(folder)) == [[], []]
    assert "no label file" not in caplog.text


def test_files_of_systems_and_editors_are_no_images(folder, tiny_coco):
    names = (".ipynb_checkpoints/0-checkpoint", "__MACOSX/0", "@eaDir/0.png/SYNOPHOTO", "._0", ".a")
    for name in names:
        file = folder / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(tiny_coco / "val2017" / "0.png")
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "folder.png").mkdir()
    (folder / "images" / "loop").symlink_to(folder / "images")
    (folder / "images" / "itself.png").symlink_to(folder / "images" / "itself.png")
    assert len(dataset(folder)) == 2


@pytest.mark.parametrize(
    "names",
    ["[no, yes]", "{0: no, 1: yes}", "\n  - no\n  - yes", "\n  0: 'no'\n  1: yes\nnc: 2"],
)
def test_names_are_read_as_they_are_written(folder, names):
    (folder / "data.yaml").write_text(f"train: images\nnames: {names}\n")
    assert dataset(folder).metainfo["classes"] == ("no", "yes")


@pytest.mark.parametrize("names", ["[1e3, 0x10]", "[null, ~]", "[2024-01-01, 12:30]", "[1.10, on]"])
def test_names_that_yaml_takes_for_other_things(folder, names):
    (folder / "data.yaml").write_text(f"train: images\nnames: {names}\nmade: 2024-13-45\n")
    assert dataset(folder).metainfo["classes"] == tuple(names[1:-1].split(", "))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: {0: a, x: b}", "'names' is"),
        ("names: [a, [b]]", "'names' is"),
        ("names: [a, '']", "'names' is"),
        ("names: a", "'names' is 'a'"),
        ("names: &a [*a]", "'names' is"),
        ("names: [a]\nnc: &a [*a]", "and nc is"),
        ("names: [a]\ntrain: [[images]]", "'train' is"),
        ("names: [a]\nval: images\nvalid: labels", "gives val and valid"),
        ("names: [a]\ntrain: '" + "x" * 5000 + "'", "there is no"),
        ('names: [a]\ntrain: "a\\0b"', "there is no"),
    ],
)
def test_more_malformed_data_yaml(folder, text, message):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        dataset(folder)


def test_names_that_fill_the_memory_when_they_are_written_out(folder):
    lines = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    for key in ("names", "train", "nc", "path", "kpt_shape"):
        keys = {"names": "[a, b]", "train": "images", key: "*a11"}
        text = "".join(f"{name}: {value}\n" for name, value in keys.items())
        (folder / "data.yaml").write_text(f"a0: &a0 x\n{lines}{text}")
        if key == "path":  # what is no folder has no effect
            dataset(folder)
            continue
        with pytest.raises(DataError):
            dataset(folder)


def test_a_list_of_images_as_tools_write_it(folder):
    (folder / "data.yaml").write_text("train: list.txt\nnames: [cat, dog]\n")
    lines = [
        "\ufeff./images/0.png",
        "",
        " images/1.png ",
        "images/../images/0.png",
        "data/images/1.png",
    ]
    (folder / "list.txt").write_text("\r\n".join(lines))
    assert len(dataset(folder)) == 2
    (folder / "list.txt").write_bytes("images/箱.png".encode("gbk"))
    with pytest.raises(DataError, match=r"list.txt:1: not UTF-8"):
        dataset(folder)


def test_what_is_no_image_is_named(folder):
    (folder / "images" / "2.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"2.jpg: image cannot be read: .* looks like text"):
        dataset(folder)
    with pytest.raises(DataError, match=r"annotation file not found: .*none.yaml"):
        YOLODataset(data_root=str(folder), ann_file="none.yaml")
