import pytest

from fldet.data import CocoDataset, YOLODataset
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
        ("0 0.5 0.5 0.1 0.1 0.9", "0.txt:1: 6 numbers"),  # a prediction, with a score
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
        ("names: [a", "data.yaml:1: not YAML"),
        ("- a", "holds no names"),
        ("train: images", "'names' is None"),
        ("names: {1: a}", "'names' is {1: 'a'}"),
        ("names: [a, a]", "2 names, 1 different"),
        ("names: [a]\nnc: 3", "and nc is 3"),
        ("names: [a]\ntrain: 3", "'train' is 3"),
        ("names: [a]\ntrain: none", "train is 'none', and there is no .*none"),
        ("names: [a]\ntrain: labels", "train has no image"),
        ("names: [a]\ntrain: labels/0.txt", "0.txt:1: there is no image"),
    ],
)
def test_malformed_data_yaml(folder, text, message):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        dataset(folder)


def test_what_is_no_image_is_named(folder):
    (folder / "images" / "2.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"2.jpg: image cannot be read: .* looks like text"):
        dataset(folder)
    with pytest.raises(DataError, match=r"annotation file not found: .*none.yaml"):
        YOLODataset(data_root=str(folder), ann_file="none.yaml")
