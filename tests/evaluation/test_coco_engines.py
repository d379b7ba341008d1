"""hotcoco against pycocotools called as its own users call it, and when which of them is used."""

import contextlib
import io
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fldet.errors import UnavailableError
from fldet.evaluation.coco import _by_hotcoco, _figures, _those_of, evaluate_coco
from fldet.evaluation.figures import COCO_FIGURES
from fldet.evaluation.ground_truth import read_ground_truth


def reference(content, detections):
    """Returns the twelve figures and the precisions of pycocotools; images are numbered for it."""
    number = {one["id"]: place for place, one in enumerate(content["images"])}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": place} for place in number.values()],
        "categories": content["categories"],
        "annotations": [
            {**one, "id": place, "image_id": number[one["image_id"]]}
            for place, one in enumerate(content["annotations"], start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = [{**one, "image_id": number[one["image_id"]]} for one in detections]
        evaluation = COCOeval(truth, truth.loadRes(found) if found else COCO(), "bbox")
        if not found:
            evaluation.cocoDt.dataset = {**truth.dataset, "annotations": []}
            evaluation.cocoDt.createIndex()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"]


def assert_equal(content, detections):
    """Figures, figures by class, and the precisions that other figures are read from."""
    stats, expected = reference(content, detections)
    truth = read_ground_truth(content)
    _, precision = _figures(_by_hotcoco, truth, _those_of(truth, detections))
    np.testing.assert_allclose(precision, expected, rtol=0, atol=1e-12)
    figures = evaluate_coco(content, detections)
    assert figures.engine == "hotcoco"
    found = [
        -1 if math.isnan(figures.summary[name]) else figures.summary[name] for name in COCO_FIGURES
    ]
    np.testing.assert_allclose(found, stats, rtol=0, atol=1e-12)
    by_class = expected[:, :, :, 0, -1].mean(axis=(0, 1))
    per_class = [undefined_as_in_coco(value) for value in figures.per_class.values()]
    np.testing.assert_allclose(per_class, by_class, rtol=0, atol=1e-12)


def undefined_as_in_coco(value):
    return -1 if math.isnan(value) else value


# --- the same figures ----------------------------------------------------------------------------

IMAGES = (
    list(range(4)),
    ["a", "b 2", "c/3.jpg", "箱"],
    [2**63 - 4 + place for place in range(4)],
)
PLACES = st.one_of(st.integers(-20, 100), st.floats(-20, 100))
SIZES = st.one_of(st.integers(0, 40), st.floats(0, 40), st.sampled_from([32, 96, 500]))
SCORES = st.one_of(st.sampled_from([0.0, 0.5, 0.5, 0.9, 1.0]), st.floats(0, 1))


@st.composite
def scenes(draw):
    """A COCO file and detections: crowds, ties, boxes without area, unused images and classes."""
    images = draw(st.sampled_from(IMAGES))
    categories = sorted(draw(st.sets(st.integers(0, 10**13), min_size=1, max_size=3)))
    places = st.fixed_dictionaries(
        {"image_id": st.sampled_from(images), "category_id": st.sampled_from(categories)}
    )
    boxes = st.tuples(PLACES, PLACES, SIZES, SIZES).map(list)
    annotations = []
    for place, box in draw(st.lists(st.tuples(places, boxes), max_size=12)):
        area = draw(st.one_of(st.just(box[2] * box[3]), st.sampled_from([900, 1024, 9216, 1e10])))
        annotations.append(
            {**place, "bbox": box, "area": area, "iscrowd": draw(st.sampled_from([0, 0, 0, 1]))}
        )
    detections = [
        {**place, "bbox": box, "score": score}
        for place, box, score in draw(st.lists(st.tuples(places, boxes, SCORES), max_size=8))
    ]
    for _ in range(draw(st.integers(0, 12)) if annotations else 0):
        one = draw(st.sampled_from(annotations))
        x, y, w, h = one["bbox"]
        dx, dy, dw = (draw(st.sampled_from([0, 0, 1, -2, 5])) for _ in range(3))
        category = draw(st.sampled_from([one["category_id"], *categories]))
        detections.append(
            {
                "image_id": one["image_id"],
                "category_id": category,
                "bbox": [x + dx, y + dy, max(w + dw, 0), h],
                "score": draw(SCORES),
            }
        )
    if detections and draw(st.integers(0, 4)) == 0:  # more than COCO's 100 of an image and class
        detections += [{**detections[0], "score": draw(SCORES)}] * 110
    content = {
        "images": [{"id": one} for one in images],
        "categories": [{"id": one, "name": str(one)} for one in categories],
        "annotations": annotations,
    }
    return content, draw(st.permutations(detections)) if len(detections) < 100 else detections


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_figures_and_precisions_are_those_of_pycocotools(scene):
    assert_equal(*scene)


def content_of(boxes, classes=1, **more):
    shared = {"image_id": 1, "category_id": 3, "iscrowd": 0}
    return {
        "images": [{"id": 1}],
        "categories": [{"id": 3 * k, "name": str(k)} for k in range(1, classes + 1)],
        "annotations": [
            {**shared, "bbox": list(box), "area": box[2] * box[3], **more} for box in boxes
        ],
    }


def found_at(boxes, scores):
    return [
        {"image_id": 1, "category_id": 3, "bbox": list(box), "score": score}
        for box, score in zip(boxes, scores, strict=True)
    ]


SQUARE = (0.0, 0.0, 10.0, 10.0)
_RNG = np.random.default_rng(0)
MANY = _RNG.uniform((0, 0, 5, 5), (2000, 2000, 80, 80), (700, 4)).round(1).tolist()
FLAT = [(0.0, 0, 0, 0), (5.0, 5, 0, 3)]


@pytest.mark.parametrize(
    ("content", "detections"),
    [
        (content_of(MANY), found_at(MANY, [round(0.001 * (i % 97), 3) for i in range(700)])),
        (content_of([SQUARE]), found_at([(-1e308, 0, 1e308, 5), SQUARE], [0.9, 0.5])),
        (content_of([SQUARE], iscrowd=1), found_at([SQUARE, SQUARE], [0.9, 0.5])),
        (content_of([SQUARE, (50.0, 0, 9, 9)]), found_at([SQUARE] * 4, [-1.0, -0.0, 0.0, 5e300])),
        (
            content_of([(0.0, 0, 0, 0), (5.0, 5, 0, 3)]),
            found_at([(0, 0, 0, 0), (5, 5, 0, 3)], [1, 1]),
        ),
        (
            content_of([SQUARE]),
            found_at([(90, 0, 9, 9), SQUARE], [0.1, float(np.float32(0.1))]),
        ),
        (
            content_of([(100.0 * i, 0, 10, 10) for i in range(10)]),
            found_at([(100 * i, 0, 10, 5 + 0.5 * i) for i in range(10)], [0.5] * 10),
        ),
        (content_of([SQUARE], classes=300), found_at([SQUARE], [0.5])),
    ],
    ids=[
        "many boxes in an image",
        "far outside of the image",
        "a crowd alone",
        "scores that are no probabilities",
        "boxes without area",
        "scores that are equal in single precision",
        "overlaps on the thresholds",
        "classes without a box",
    ],
)
def test_extreme_scenes_are_those_of_pycocotools(content, detections):
    assert_equal(content, detections)


# --- which engine --------------------------------------------------------------------------------

ONE = (content_of([SQUARE]), found_at([SQUARE], [0.5]))


def test_without_hotcoco_pycocotools_computes_and_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with caplog.at_level(logging.INFO, "fldet"):
        assert evaluate_coco(*ONE).engine == "pycocotools"
    assert "by pycocotools: hotcoco cannot be imported" in caplog.text
    with pytest.raises(UnavailableError, match="pip install hotcoco"):
        evaluate_coco(*ONE, engine="hotcoco")


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="'fastest'"):
        evaluate_coco(*ONE, engine="fastest")


FORKS = """
import os, signal
from fldet.evaluation.coco import evaluate_coco
content = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
print(evaluate_coco(content, []).engine, flush=True)
if not os.fork():
    signal.alarm(20)  # ends a process that waits for threads which are not there
    print(evaluate_coco(content, []).engine, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_process_forked_from_one_that_has_used_hotcoco_uses_pycocotools():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["hotcoco", "pycocotools"], done.stderr
