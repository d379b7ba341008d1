import json

import pytest

from fldet.annotations import read_annotations, read_class_names
from fldet.data.coco import CocoDataset, parse_instance
from fldet.errors import DataError


def dataset(root, split="train2017", **options):
    return CocoDataset(
        data_root=str(root),
        ann_file=f"annotations/instances_{split}.json",
        data_prefix={"img": split},
        pipeline=[],
        **options,
    )


def test_labels_follow_the_names_whatever_the_ids(tiny_coco):
    """Ids 3 (circle) and 7 (square) have gaps and stand in the file in the other order."""
    data = dataset(tiny_coco)
    assert data.metainfo["classes"] == ("circle", "square")
    assert [box["bbox_label"] for box in data.get_data_info(1)["instances"]] == [1, 0]
    turned = dataset(tiny_coco, metainfo={"classes": ("square", "circle")})
    assert [box["bbox_label"] for box in turned.get_data_info(1)["instances"]] == [0, 1]


def test_a_subset_of_the_classes_can_be_used(tiny_coco):
    data = dataset(tiny_coco, metainfo={"classes": ("square",)})
    assert [len(data.get_data_info(i)["instances"]) for i in range(6)] == [1, 1, 1, 1, 1, 0]


def test_images_without_objects_are_kept_unless_filtered(tiny_coco):
    assert len(dataset(tiny_coco)) == 6
    assert len(dataset(tiny_coco, filter_cfg={"filter_empty_gt": True})) == 5
    with pytest.raises(DataError, match="leaves no image to use, of 6"):
        dataset(tiny_coco, filter_cfg={"min_size": 65})
    assert len(dataset(tiny_coco, filter_cfg={"filter_empty_gt": True}, test_mode=True)) == 6


def test_crowd_regions_are_ignored_boxes(tiny_coco):
    flags = [box["ignore_flag"] for box in dataset(tiny_coco).get_data_info(0)["instances"]]
    assert flags == [1, 0]


def test_paths_and_sizes(tiny_coco):
    info = dataset(tiny_coco).get_data_info(0)
    assert info["img_path"] == str(tiny_coco / "train2017" / "0.png")
    assert (info["img_id"], info["width"], info["height"]) == (5, 64, 64)


def test_unknown_class_names_the_nearest(tiny_coco):
    with pytest.raises(DataError, match="class 'sqare' is not in") as error:
        dataset(tiny_coco, metainfo={"classes": ("sqare",)})
    assert "did you mean square?" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"area": 0}, True),  # home-made files often lack a right area
        ({"bbox": [10, 10, 0.5, 20]}, False),  # thinner than a pixel
        ({"bbox": [10, 10, -5, 20]}, False),  # negative width
        ({"bbox": [float("nan"), 10, 5, 20]}, False),
        ({"bbox": [200, 10, 5, 20]}, False),  # outside the image
        ({"bbox": [90, 10, 50, 20]}, True),  # partly outside
        ({"category_id": 99}, False),
        ({"ignore": 1}, False),
    ],
)
def test_boxes_that_cannot_be_learned_are_left_out(changes, kept):
    annotation = {"category_id": 1, "bbox": [10, 10, 20, 20], **changes}
    assert (parse_instance(annotation, {1: 0}, 100, 100) is not None) == kept


def test_real_coco_has_its_80_classes_in_order(coco_mini):
    path = coco_mini / "annotations" / "instances_val2017.json"
    names = read_class_names(path)
    assert len(names) == 80
    assert (names[0], names[11], names[79]) == ("person", "stop sign", "toothbrush")
    data = dataset(coco_mini, "val2017", test_mode=True)
    assert len(data) == 82
    assert sum(box["ignore_flag"] for i in range(82) for box in data[i]["instances"]) == 11


def test_class_names_without_parsing_the_whole_file(tmp_path):
    """Neither a broken end behind the categories matters nor another list of that name."""
    path = tmp_path / "a.json"
    path.write_text('{"info": {"categories": [1]}, "categories": [{"id": 2, "name": "b"}], "rest')
    assert read_class_names(path) == ("b",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "annotation file not found"),
        ("{", "is not JSON: .* at line 1"),
        ("[1]", "has no list 'images'"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, message):
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_annotations(path)
    assert "broken.json" in error.value.message


def test_two_categories_of_one_name(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}))
    with pytest.raises(DataError, match="two categories have the same id or name"):
        read_class_names(path)


@pytest.mark.parametrize("name", ["not_json", "no_categories_key"])
def test_bad_inputs(bad_inputs, name):
    with pytest.raises(DataError, match=f"{name}.json"):
        read_annotations(bad_inputs / "annotations" / f"{name}.json")
