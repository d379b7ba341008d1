"""Detections as a table; files and checks of single ones are in ``test_coco.py``."""

import math

import numpy as np
import pytest
import torch

from fldet.errors import DataError
from fldet.evaluation.detections import (
    DetectionTable,
    ImageDetections,
    check_detections,
    image_detections,
    save_detections,
)

ENTRIES = [
    {"image_id": "b", "category_id": 20, "bbox": [0.1, 1.0, 2.0, 3.0], "score": 0.5},
    {"image_id": "a", "category_id": 10, "bbox": [1e-7, 0.0, 1e22, 3.0], "score": 1.0},
    {"image_id": "b", "category_id": 10, "bbox": [-1.5, 1.0, 0.0, 3.0], "score": 0.3},
]


def test_a_table_holds_what_the_entries_say_in_their_order():
    table = DetectionTable.of(ENTRIES)
    assert list(table) == ENTRIES
    assert (table[0], table[-1], list(table[1:])) == (ENTRIES[0], ENTRIES[2], ENTRIES[1:])
    assert list(table.part(np.array([True, False, True]))) == [ENTRIES[0], ENTRIES[2]]
    assert DetectionTable.of(table) is table
    with pytest.raises(IndexError):
        table[3]


def test_a_table_and_its_entries_are_the_same_file(tmp_path):
    a = save_detections(tmp_path / "a.json", DetectionTable.of(ENTRIES))
    b = save_detections(tmp_path / "b.json", ENTRIES)
    assert a.read_bytes() == b.read_bytes()
    assert a.read_text().count("\n") == len(ENTRIES)


def test_of_images_without_detections_and_of_none():
    found = ImageDetections(np.array([1]), np.array([[1.0, 2, 3, 4]]), np.array([0.5]))
    nothing = ImageDetections(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))
    table = DetectionTable.of_images({7: nothing, 8: found, 9: nothing}, (10, 20))
    assert list(table) == [
        {"image_id": 8, "category_id": 20, "bbox": [1, 2, 3, 4], "score": 0.5},
    ]
    assert list(DetectionTable.of_images({}, (10, 20))) == []


def test_predictions_of_a_class_that_the_annotations_lack_are_left_out():
    instances = {
        "bboxes": torch.tensor([[0.0, 0, 2, 3], [1, 1, 5, 9]]),
        "scores": torch.tensor([0.5, 0.25]).bfloat16(),
        "labels": torch.tensor([0, 1]),
    }
    found = image_detections(instances, (None, 20))
    assert found.labels.tolist() == [1]
    assert found.boxes_xywh.tolist() == [[1, 1, 4, 8]]
    assert found.scores.tolist() == [0.25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0.0, math.nan, 1, 1]}, "detection 1 is malformed, 'bbox' or 'score' is not"),
        ({"bbox": [0.0, 0, math.inf, 1]}, "detection 1 is malformed, 'bbox' or 'score' is not"),
        ({"bbox": [0.0, 0, 1, -1]}, "detection 1 is malformed, 'bbox' has a negative size"),
        ({"score": math.nan}, "detection 1 is malformed"),
        ({"image_id": "c"}, "detection 1 has the image_id 'c'"),
        ({"category_id": 30}, "detection 1 has the category_id 30"),
    ],
)
def test_a_fault_in_a_table_is_named_as_in_entries(change, message):
    entries = [ENTRIES[0], {**ENTRIES[1], **change}]
    for detections in (entries, DetectionTable.of(entries)):
        with pytest.raises(DataError, match=message):
            check_detections(detections, images=("a", "b"), categories=(10, 20))


def test_an_id_that_no_detection_has_may_be_unknown():
    table = DetectionTable.of(ENTRIES).part(slice(1, 2))
    check_detections(table, images=("a",), categories=(10, 99))
