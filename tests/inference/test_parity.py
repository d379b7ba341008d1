import dataclasses

import numpy as np
import pytest

from fldet.inference.detections import Detections
from fldet.inference.parity import is_within, match
from fldet.inference.results import ParityResult


def boxes(*rows):
    """Rows of x, score, label."""
    return Detections(
        boxes=np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows], np.float32),
        labels=np.array([label for _, _, label in rows], np.int64),
        names=tuple(str(label) for _, _, label in rows),
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (boxes((0, 0.9, 0), (50, 0.8, 1)), boxes((50, 0.8, 1), (0, 0.9, 0)), (0, 0, 0)),
        (boxes((0, 0.9, 0)), boxes((0.5, 0.9, 0)), (0.5, 0, 0)),
        (boxes((0, 0.9, 0)), boxes((0, 0.9, 1)), (0, 0, 2)),
        (boxes((0, 0.9, 0)), boxes((9, 0.9, 0)), (0, 0, 2)),
        (boxes((0, 0.9, 0)), boxes(), (0, 0, 1)),
        (boxes((0, 0.05001, 0)), boxes(), (0, 0, 0)),
    ],
    ids=["order", "moved", "class", "far", "missing", "at the threshold"],
)
def test_how_two_results_are_compared(one, other, expected):
    assert match(one, other, 0.05) == pytest.approx(expected)
    assert match(other, one, 0.05) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "limit", "unmatched"),
    [
        (boxes((0, 0.9, 0), (50, 0.8, 1)), 1, 0),
        (boxes((0, 0.9, 0), (50, 0.8, 1)), 3, 1),
        (boxes((0, 0.9, 0), (50, 0.8, 1)), -1, 1),
        (boxes(), -1, 1),
    ],
    ids=["full", "not full", "no limit", "no limit, empty"],
)
def test_what_falls_off_the_end_of_a_full_list_is_not_missing(one, limit, unmatched):
    other = boxes((0, 0.9, 0))
    assert match(one, other, 0.05, limit) == pytest.approx((0, 0, unmatched))


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, True), ({"box_px": 0.01}, False), ({"score": 0.001}, False), ({"unmatched": 1}, False)],
)
def test_the_tolerance(change, expected):
    good = ParityResult(1, 5, 1e-4, 1e-5, 0, 1.0, 1.0)
    assert is_within(dataclasses.replace(good, **change)) is expected
