"""Thresholds of each class: their file, what is refused, and which detections they keep."""

import json

import pytest

from fldet.errors import DataError, UsageError
from fldet.evaluation.thresholds import Thresholds, read_thresholds

BOTH = {"cat": 0.5, "dog": 0.25}


def test_a_file_with_scores_alone_is_enough(tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps({"scores": BOTH}))
    assert read_thresholds(path) == read_thresholds(BOTH) == Thresholds(BOTH)
    assert read_thresholds(path).lowest == 0.25


def test_a_detection_counts_from_the_score_of_its_class_on():
    found = read_thresholds(BOTH).for_classes(("dog", "cat"))  # the order of the detector
    assert found.kept([0.25, 0.24, 0.5, 0.49], [0, 0, 1, 1]).tolist() == [True, False, True, False]
    assert found.kept([], []).tolist() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"scores": {"cat": 1.5}}, r"scores\.cat is 1\.5"),
        ({"scores": {"cat": "much"}}, r"scores\.cat is 'much'"),
        ({"scores": {"cat": None}}, "scores"),
        ({"scores": {}}, "no class in the thresholds"),
        ({"scores": [0.5]}, r"scores is \[0\.5\]"),
        ({"cat": 0.5}, "scores is missing"),
        ([], "its content is"),
    ],
)
def test_another_file_is_refused(tmp_path, content, words):
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        read_thresholds(path)


@pytest.mark.parametrize("scores", [{"cat": 1.5}, {"cat": float("nan")}, {"cat": "much"}, {}])
def test_other_scores_are_refused(scores):
    with pytest.raises(DataError):
        read_thresholds(scores)


@pytest.mark.parametrize(
    ("classes", "words", "expected"),
    [
        (("cat", "dogs"), "threshold of the class 'dog'", "dogs"),
        (("cat", "dog", "cow"), "no threshold of the class 'cow'", "each class"),
        ((), "threshold of the class 'cat'", ""),
    ],
)
def test_classes_must_be_those_of_the_detector(classes, words, expected):
    with pytest.raises(UsageError, match=words) as caught:
        read_thresholds(BOTH).for_classes(classes)
    assert expected in (caught.value.expected or "")
