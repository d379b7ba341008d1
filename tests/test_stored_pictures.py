"""What is drawn of files that fldet has written and reads again, with odd values in them."""

import json
import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
from stored_content import (
    BOXES,
    PROCEDURE,
    SAMPLE,
    at,
    errors,
    outcome,
    places,
    read_curves_of_sample,
    refusal,
    replaced,
    speed,
)

from fldet.analysis.errors.analyze import redraw_errors
from fldet.analysis.errors.result import load
from fldet.analysis.errors.worst import draw_worst
from fldet.analysis.loss_cdf.analyze import redraw_loss_cdf
from fldet.analysis.speed_accuracy import analyze_speed_accuracy, speed_accuracy
from fldet.anchors.cover import BoxSet
from fldet.anchors.pictures import plot as plot_anchors
from fldet.anchors.report import compute


def speed_alone(folder):
    result = speed(folder)["result"]
    kept = {name: result[name] for name in ("median_ms", "device", "precision", "threads")}
    return {"command": "benchmark", "result": kept}


def point_of(path):
    test = path.with_name("test.json")
    test.write_text(json.dumps(outcome(None)))
    return [("a", test, path)]


def sample_of(path):
    archive = path.with_suffix(".npz")
    np.savez(archive, **{**SAMPLE, "procedure": path.read_text()})
    return archive


DRAWN = {
    "errors": (errors, load, lambda path: redraw_errors(path, out_dir=path.parent)),
    "point": (
        speed_alone,
        lambda path: speed_accuracy(point_of(path)),
        lambda path: analyze_speed_accuracy(point_of(path), out_dir=path.parent),
    ),
    "sample": (
        lambda _: vars(PROCEDURE),
        lambda path: read_curves_of_sample(sample_of(path)),
        lambda path: redraw_loss_cdf(sample_of(path), out_dir=path.parent),
    ),
}


def height(value):
    """Returns 0 of a value that has no parts, 1 of a dict or list of such, and so on."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(height, value.values() if isinstance(value, dict) else value), default=0)


def changed_where_read(content, wanted, change, read, path):
    """Writes the content changed at once in all places of a height where it is read so."""
    for place in [one for one in places(content) if height(at(content, one)) == wanted]:
        changed = replaced(content, place, change(at(content, place)))
        path.write_text(json.dumps(changed))
        content = content if refusal(place, read, path) else changed
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("value", [None, -1, 10**13, 1e308, "", "\ud800$x", "x" * 300], ids=ascii)
@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.filterwarnings("default")
def test_what_is_read_can_be_drawn(tmp_path, name, value, monkeypatch):
    # pytest-xdist cannot carry letters that are none in what was logged
    monkeypatch.setattr(logging.getLogger("fldet"), "disabled", True)
    make, read, draw = DRAWN[name]
    changed_where_read(make(tmp_path), 0, lambda _: value, read, tmp_path / "a.json")
    draw(tmp_path / "a.json")


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_read_without_its_parts_can_be_drawn(tmp_path, name):
    make, read, draw = DRAWN[name]
    content = make(tmp_path)
    for each in range(1, height(content)):
        changed_where_read(content, each, lambda value: type(value)(), read, tmp_path / "a.json")
        draw(tmp_path / "a.json")


def test_words_of_a_file_are_no_formulas(tmp_path):
    words = {"config": "\ud800$x_{", "split": "$", "resizing": "\x1b$$^", "images": "2 images"}
    report = compute(BoxSet.load(replace(BOXES, about=words).save(tmp_path / "a.npz")))
    assert len(plot_anchors(report, tmp_path / "a.png")) == 2
    made = replace(PROCEDURE, config="\ud800$x_{", split="$$^")
    np.savez(tmp_path / "b.npz", **{**SAMPLE, "procedure": json.dumps(vars(made))})
    assert len(redraw_loss_cdf(tmp_path / "b.npz", out_dir=tmp_path).files) == 4


def test_a_crowded_image_is_drawn_with_its_mistakes(tmp_path, monkeypatch):
    content = errors(tmp_path)
    (image,) = content["worst"]
    image["detections"] *= 5000
    path = tmp_path / "errors.json"
    path.write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    drawn = []
    monkeypatch.setattr(
        "fldet.analysis.errors.worst.draw_tagged_boxes",
        lambda picture, boxes, *_, **__: drawn.append(len(boxes)) or picture,
    )
    draw_worst(load(path), tmp_path, tmp_path)
    assert drawn == [len(image["objects"]), 1000]
