import json
import logging

import pytest

from fldet.data.annotations import read_annotations, read_class_names
from fldet.data.coco import CocoDataset, parse_instance, require_boxes
from fldet.errors import DataError
from fldet.evaluation.ground_truth import read_ground_truth


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


def changed(tiny_coco, tmp_path, change, split="train2017"):
    """Returns the data set with other annotations of the same images."""
    content = json.loads((tiny_coco / "annotations" / f"instances_{split}.json").read_text())
    change(content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    prefix = {"img": str(tiny_coco / split)}
    return lambda **options: CocoDataset(
        ann_file=str(path), data_prefix=prefix, pipeline=[], **options
    )


def test_a_file_may_lack_classes_that_another_one_has(tiny_coco, caplog):
    with caplog.at_level(logging.WARNING, "fldet"):
        data = dataset(tiny_coco, metainfo={"classes": ("zebra", "square", "circle")})
    assert [box["bbox_label"] for box in data.get_data_info(1)["instances"]] == [1, 2]
    [line] = caplog.messages
    assert line.endswith("lacks 1 of the classes: zebra")
    with pytest.raises(DataError, match="class 'zebra' is not in"):
        require_boxes([data])
    require_boxes([data, dataset(tiny_coco)])  # another file of the training has it


@pytest.mark.parametrize(("text", "crowd"), [("0", 0), ("false", 0), ("1", 1), (0.0, 0), (None, 0)])
def test_flags_as_texts(tiny_coco, tmp_path, text, crowd):
    def change(content):
        for one in content["annotations"]:
            one["iscrowd"] = text

    data = changed(tiny_coco, tmp_path, change)()
    flags = {box["ignore_flag"] for i in range(6) for box in data.get_data_info(i)["instances"]}
    assert flags == {crowd}
    truth = read_ground_truth(tmp_path / "changed.json")
    assert {one["iscrowd"] for one in truth.annotations} == {crowd}
    if crowd:
        with pytest.raises(DataError, match="there is no box to learn from"):
            require_boxes([data])


def as_shares(content):
    for one in content["annotations"]:
        one["bbox"] = [value / 64 for value in one["bbox"]]


def of_unknown_images(content):
    for one in content["annotations"]:
        one["image_id"] = str(one["image_id"])


def of_unknown_category(content):
    for one in content["annotations"]:
        one["category_id"] = 99


@pytest.mark.parametrize("change", [as_shares, of_unknown_images, of_unknown_category])
@pytest.mark.parametrize("test_mode", [False, True])
def test_a_file_of_which_nothing_can_be_used_is_an_error(tiny_coco, tmp_path, change, test_mode):
    with pytest.raises(DataError, match="none of the 10 annotations can be used"):
        changed(tiny_coco, tmp_path, change)(test_mode=test_mode)


@pytest.mark.parametrize(
    "change",
    [
        {"category_id": "7"},
        {"category_id": None},
        {"category_id": 7.5},
        {"category_id": True},
        {"image_id": 1.5},
        {"iscrowd": 2},
        {"ignore": "perhaps"},
        {"bbox": [1, 2, "3", 4]},
        {"bbox": [1, 2, False, 4]},
    ],
)
def test_what_is_no_annotation_is_an_error_in_training_and_figures(tiny_coco, tmp_path, change):
    build = changed(tiny_coco, tmp_path, lambda c: c["annotations"][3].update(change))
    with pytest.raises(DataError, match="an annotation is malformed"):
        build()
    if "ignore" not in change:  # COCO's figures do not look at it
        with pytest.raises(DataError, match=r"annotation 3 (is malformed|has the category_id)"):
            read_ground_truth(tmp_path / "changed.json")


def test_an_image_under_two_ids_is_named(tiny_coco, tmp_path, caplog):
    def change(content):
        content["images"].append({**content["images"][0], "id": "again"})

    with caplog.at_level(logging.WARNING, "fldet"):
        assert len(changed(tiny_coco, tmp_path, change)()) == 7
    assert "lists 1 images under more than one id, such as '0.png'" in caplog.text


@pytest.mark.parametrize("name", [[], {}, ["0.png"], 7, True, ""])
def test_a_file_name_that_is_no_text_is_named(tiny_coco, tmp_path, name):
    with pytest.raises(DataError, match="file_name that names no file"):
        changed(tiny_coco, tmp_path, lambda c: c["images"][0].update(file_name=name))()


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
