"""What several detectors have found, as one."""

import numpy as np
import pytest

from fldet.inference.detections import Detections
from fldet.inference.detector import Detector
from fldet.inference.ensemble import Ensemble, merge_boxes


def found(*rows):
    """Detections of rows of x1, y1, x2, y2, score, label."""
    array = np.array(rows, np.float32).reshape(-1, 6)
    labels = array[:, 5].astype(np.int64)
    return Detections(array[:, :4], array[:, 4], labels, tuple(map(str, labels)))


def test_boxes_of_one_object_become_their_mean_by_score():
    boxes, scores, labels = merge_boxes(
        [found((0, 0, 10, 10, 0.9, 1)), found((2, 0, 12, 10, 0.3, 1))]
    )
    np.testing.assert_allclose(boxes, [[0.5, 0, 10.5, 10]], rtol=1e-5)
    assert scores == pytest.approx([0.6])
    assert labels.tolist() == [1]


@pytest.mark.parametrize(("count", "score"), [(1, 0.2), (2, 0.4), (3, 0.6), (5, 1.0)])
def test_a_score_is_the_mean_times_the_share_that_agrees(count, score):
    some = [found((0, 0, 10, 10, 1.0, 0))] * count + [found()] * (5 - count)
    assert merge_boxes(some)[1] == pytest.approx([score])


def test_two_boxes_of_one_detector_do_not_count_as_two():
    twice = found((0, 0, 10, 10, 0.8, 0), (0, 0, 10, 9, 0.8, 0))
    assert merge_boxes([twice, found()])[1] == pytest.approx([0.4])


def test_other_classes_and_other_places_stay_apart_best_first():
    one = found((0, 0, 10, 10, 0.5, 0), (0, 0, 10, 10, 0.9, 1), (50, 50, 60, 60, 0.7, 0))
    boxes, scores, labels = merge_boxes([one, one])
    assert scores == pytest.approx([0.9, 0.7, 0.5])
    assert labels.tolist() == [1, 0, 0]
    assert boxes[1].tolist() == [50, 50, 60, 60]


def test_nothing_and_boxes_without_area():
    for some in ([found(), found()], [found((3, 3, 3, 9, 0.9, 0)), found()]):
        boxes, scores, labels = merge_boxes(some)
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    ("agnostic", "expected"), [(False, ["circle", "square"]), (True, ["circle"])]
)
def test_boxes_suppress_those_of_other_classes_where_asked_for(
    tiny_run, monkeypatch, agnostic, expected
):
    """Each detector has one box on the object, but not of the same class."""
    members = [Detector.load(tiny_run[1], device="cpu", agnostic_nms=agnostic) for _ in range(2)]
    for one, label, score in zip(members, (0, 1), (0.9, 0.8), strict=True):
        boxes = [found((0, 0, 10, 10, score, label))]
        monkeypatch.setattr(one, "_detect_batch", lambda *_, boxes=boxes: boxes)
    (result,) = Ensemble(members)._detect_batch([None], 0.1)
    assert list(result.names) == expected
