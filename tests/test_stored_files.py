"""Files that fldet has written and reads again: with any content, a result or an error of ours."""

import json
import logging
import math
import os
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fldet.analysis.errors.analyze import redraw_errors
from fldet.analysis.errors.collect import TestedData
from fldet.analysis.errors.compute import find_errors
from fldet.analysis.errors.result import load, save
from fldet.analysis.errors.worst import draw_worst
from fldet.analysis.loss_cdf.analyze import redraw_loss_cdf
from fldet.analysis.loss_cdf.curves import (
    Procedure,
    Sample,
    loss_cdf_of,
    procedure_text,
    read_curves,
    read_sample,
    write_json,
)
from fldet.analysis.speed_accuracy import analyze_speed_accuracy, speed_accuracy
from fldet.analysis.thresholds.result import (
    ClassThreshold,
    HeldOut,
    ThresholdAnalysis,
)
from fldet.analysis.thresholds.result import load as load_thresholds
from fldet.analysis.thresholds.result import save as save_thresholds
from fldet.anchors.cover import AnchorScheme, AssignRule, BoxSet
from fldet.anchors.pictures import plot as plot_anchors
from fldet.anchors.report import compute
from fldet.benchmark.results import SpeedResult
from fldet.engine.results import PrecisionCheck, TestResult
from fldet.errors import DataError, FldetError, shorten
from fldet.evaluation.figures import CocoFigures, VocFigures
from fldet.evaluation.ground_truth import GroundTruth
from fldet.evaluation.thresholds import read_thresholds
from fldet.files import read_arrays
from fldet.paper.asked import asked_for
from fldet.paper.plan import runs_in
from fldet.paper.report import _machines, _processes
from fldet.paper.tiers import find_tier
from fldet.report.content import find_loss_cdf, report_of
from fldet.report.page import render
from fldet.report.record import read_run
from fldet.results import to_json
from fldet.runs.cluster import read_job
from fldet.runs.outcome import read_outcome
from fldet.runs.run import Record, Run, read_record, result_of

DEEP = "@deep@"
VALUES: tuple[Any, ...] = (
    *(None, True, 5, -1, 10**13, 1e308, 10**400, math.nan, math.inf),
    *("", "x", "\ud800", "a\0b", "../../etc", "$x", "x" * 300, "x" * 20_000, DEEP),
    *([], [1], ["x"], [None] * 4, [[]], {}, {"a": 1}, {"a": {}}),
)


def places(content, path=()):
    """Yields the path of every value; of a list only that of the first item."""
    yield path
    if isinstance(content, dict):
        for key, value in content.items():
            yield from places(value, (*path, key))
    elif isinstance(content, list) and content:
        yield from places(content[0], (*path, 0))


def at(content, place):
    """Returns the value at a path of ``places``."""
    for key in place:
        content = content[key]
    return content


def replaced(content, place, value):
    """Returns a copy with another value at one place, or without it where that is ``KeyError``."""
    if not place:
        return None if value is KeyError else value
    copy = json.loads(json.dumps(content))
    *way, last = place
    if value is KeyError:
        del at(copy, way)[last]
    else:
        at(copy, way)[last] = value
    return copy


def mutations(content):
    """Yields a description and the text of JSON with one value replaced or left out."""
    for place in places(content):
        for value in (*VALUES, KeyError):
            text = json.dumps(replaced(content, place, value))
            yield f"{place}: {shorten(value, 40)}", text.replace(f'"{DEEP}"', "[" * 200_000)


def refusal(what, read, path):
    """Returns what an error of ours says of a file, nothing where it is read."""
    try:
        read(path)
    except FldetError as error:
        return str(error)
    except Exception as error:
        pytest.fail(f"{what}: {error!r}")
    return ""


# --- files and readers ---------------------------------------------------------------------------


def errors(folder):
    entry = {"image_id": 1, "category_id": 1, "bbox": [2.0, 3.0, 10.0, 9.0]}
    objects = [{**entry, "category_id": k, "area": 90.0, "iscrowd": 0} for k in (1, 2)]
    objects[1]["bbox"] = [50.0, 50.0, 9.0, 10.0]
    truth = GroundTruth((1, 2), {1: "cat", 2: "dog"}, tuple(objects))
    found = [{**entry, "category_id": k, "score": score} for k, score in ((1, 0.9), (2, 0.8))]
    found.append({**entry, "category_id": 2, "bbox": objects[1]["bbox"], "score": 0.5})
    files = folder, Path("a.json"), Path("b.json")
    tested = TestedData(truth, found, {1: "a.png"}, *files)
    analysis = find_errors(tested, num_worst=1, num_random=1)
    return json.loads(save(analysis, folder / "errors.json").read_text())


def thresholds(folder):
    cat = ClassThreshold(0.4, 0.5, 0.6, 0.55, 0.3, 0.5, 7, 9, "no")
    curve = ((0.4, 0.5, 0.6, 0.55),)
    analysis = ThresholdAnalysis(
        {"cat": cat}, "F1", "folds", "here", 0.5, 0.3, HeldOut(0.5, 0.4), {"cat": curve}
    )
    return json.loads(save_thresholds(analysis, folder / "thresholds.json").read_text())


def read_and_use_thresholds(path):
    load_thresholds(path)
    read_thresholds(path).for_classes(("cat",)).kept([0.5], [0])


PROCEDURE = Procedure("r50", "best.pth", "val", "anchor-class", 12, 3, 50, 5000)
LOGITS = np.linspace(-3, 3, 20, dtype=np.float32)
SAMPLE = {"positives": LOGITS, "negatives": LOGITS, "procedure": json.dumps(vars(PROCEDURE))}


def loss_curves(folder):
    curves = loss_cdf_of(Sample(LOGITS, LOGITS, PROCEDURE))
    return json.loads(write_json(curves, folder / "loss_cdf_r50_val.json").read_text())


def read_loss_curves(path):
    curves = read_curves(path)
    return f"{curves}", procedure_text(curves), find_loss_cdf("r50", path.parent, [])


COCO = CocoFigures({"AP": 0.3, "AP_S": math.nan}, {"cat": 0.3}, 2, 5, "faster")
VOC = VocFigures({"mAP": 0.3}, {"cat": 0.3}, 2, 5, "own", {"cat": 0.2})
CHECK = PrecisionCheck(0.3, 0.0, 0.1, True)
TESTED = TestResult(
    *(COCO, Path("w/iter_4.pth"), Path("w"), Path("w/detections.json"), (Path("a.png"),), 3.5),
    check=CHECK,
    others={"voc": VOC},
    image_ids=(1, "b"),
)


def outcome(_folder):
    return json.loads(to_json("test", TESTED))


def speed(_folder):
    return json.loads(to_json("benchmark", SpeedResult(50.0, 60.0, 9, (8, 8), "cpu", "float32", 2)))


def read_page(path):
    return render(report_of(read_run(path.parent), path.parent))


def read_test(path):
    return _point(path, speed, lambda one: ("a", path, one))


def read_speed(path):
    return _point(path, outcome, lambda one: ("a", one, path))


def _point(path, content, point):
    other = path.with_name("other.json")
    other.write_text(json.dumps(content(None)))
    return str(speed_accuracy([point(other)]))


def record(_folder):
    steps = ("train", "test")
    made = Record("done", "0" * 16, ("a=1",), steps, {"train": 1.0}, "", ({"processes": "2"},), 16)
    return json.loads(json.dumps(vars(made)))


def read_record_and_sum(path):
    made = read_record(path.parent)
    return sum(made.seconds.values()), _machines(made.machines), _processes(made)


def read_asked(path):
    names = {name for names in asked_for(path.parent).values() for name in names}
    for name in names:
        assert (path.parent / name).resolve().is_relative_to(path.parent.resolve())
        int(name.rpartition("seed_")[2])
        read_record(path.parent / name)


def run_in(folder):
    return Run((), 0, folder / "a.py", folder, "", ())


READERS = {
    "errors.json": (errors, load),
    "thresholds.json": (thresholds, read_and_use_thresholds),
    "loss_cdf_r50_val.json": (loss_curves, read_loss_curves),
    "result.json": (outcome, read_page),
    "test/result.json": (outcome, read_outcome),
    "of_test.json": (outcome, read_test),
    "of_benchmark.json": (speed, read_speed),
    "benchmark.json": (speed, lambda path: result_of(run_in(path.parent))),
    "run.json": (record, read_record_and_sum),
    "asked.json": (lambda _: {"table1b": ["fl_gamma_2/seed_0"]}, read_asked),
    "cluster_job.json": (lambda _: {"id": "12"}, read_job),
}


@pytest.mark.parametrize("name", READERS)
def test_any_content_is_read_or_refused(tmp_path, name):
    make, read = READERS[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    content = make(tmp_path)
    path.write_text(json.dumps(content))
    read(path)
    for what, text in mutations(content):
        path.write_text(text)
        if said := refusal(what, read, path):
            assert len(said) < 2000, what


@pytest.mark.parametrize("name", READERS)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_waited_for(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name in ("benchmark.json", "run.json", "asked.json"):
        pytest.skip("is looked for as a regular file only")
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"is a pipe|nothing to report"):
        READERS[name][1](path)


@pytest.mark.parametrize(
    "name",
    [
        *("../../../etc/seed_0", "a/../seed_0", "/etc/seed_0", "..", ".hidden/seed_0", "x"),
        *("a/b/seed_0", "a/seed_x", f"a/seed_{10**98}", f"{'a' * 300}/seed_0"),
        *("a\n/seed_0", "a/seed_0\n", "a\0/seed_0"),
    ],
)
def test_a_run_lies_in_the_folder_of_its_tier(tmp_path, name):
    (tmp_path / "laptop").mkdir()
    (tmp_path / "laptop" / "asked.json").write_text(json.dumps({"table1b": [name]}))
    with pytest.raises(DataError, match=r"asked\.json is no list"):
        runs_in(tmp_path, find_tier("laptop"))


# --- arrays --------------------------------------------------------------------------------------

SCHEME = AnchorScheme((32.0, 64.0), (8, 16), 3, (0.5, 1.0, 2.0))
BOXES = BoxSet(
    np.array([[0, 0, 30, 30], [5, 5, 70, 60]], np.float32),
    np.array([0, 1]),
    np.array([[96, 64], [96, 96]]),
    np.array([900.0, 3000.0], np.float32),
    *(SCHEME, AssignRule()),
    about={"config": "c", "split": "train", "images": "2 images", "resizing": "none"},
)


def boxes(folder):
    with np.load(BOXES.save(folder / "whole.npz")) as content:
        return {name: content[name] for name in content.files}


def read_boxes(path):
    return str(compute(BoxSet.load(path)))


def read_curves_of_sample(path):
    return str(loss_cdf_of(read_sample(path)))


ARCHIVES = {
    "boxes": (boxes, "facts", read_boxes),
    "sample": (lambda _: SAMPLE, "procedure", read_curves_of_sample),
}
ARRAYS = (
    *(np.zeros(0), np.zeros(3), np.zeros((2, 4)), np.zeros((2, 4), np.float32), np.array("x")),
    *(np.zeros((0, 4), np.float32), np.zeros((2, 3), np.float32), np.zeros((0, 2), np.int64)),
    *(np.array([0, 2]), np.array([1, 0]), np.array([-1, 0]), np.array([2**63 - 1, -2])),
    *(np.array([0]), np.array([[0, 0], [1, 1]]), np.array([[-5, 5], [5, 5]]), np.array({})),
    *(np.full((2, 2), 2**40), np.full((2, 2), 2**62), np.ones((10**6, 2), np.int64)),
    *(np.full((2, 4), np.nan, np.float32), np.full((2, 4), 1e30, np.float32)),
    *(np.full(2, np.nan, np.float32), np.full(2, np.inf, np.float32), np.full(2, -1, np.float32)),
)


@pytest.mark.parametrize("name", ARCHIVES)
def test_any_arrays_are_read_or_refused(tmp_path, name):
    make, text, read = ARCHIVES[name]
    content, path = make(tmp_path), tmp_path / "a.npz"
    np.savez(path, **content)
    read(path)
    changed = [
        (f"{key} {array!r}"[:60], {**content, key: array}) for key in content for array in ARRAYS
    ]
    changed += [(f"no {key}", {k: v for k, v in content.items() if k != key}) for key in content]
    facts = mutations(json.loads(str(content[text])))
    changed += [(what, {**content, text: np.array(of_it)}) for what, of_it in facts]
    for what, arrays in changed:
        np.savez(path, **arrays)
        refusal(what, read, path)


def header(shape="(3,)", dtype="'<f4'", rest=b""):
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + rest


MEMBERS = {
    "a bomb": header("(400_000_000,)", rest=bytes(2**20)),
    "a size beyond every memory": header("(10**10,)".replace("10**10", str(10**10))),
    "a negative size": header("(-1,)"),
    "a size that is no number": header("('x',)"),
    "too short": header("(3,)", rest=b"\0"),
    "nested too deep": header("(" * 3000 + ")" * 3000),
    "no Python": header("(3"),
    "objects": header(dtype="'|O'", rest=b"cos\nsystem\n"),
    "a long header": header(dtype="'" + "x" * 60_000 + "'"),
    "a type of many parts": header(dtype="[('a', '<f4')]"),
    "another version": b"\x93NUMPY\x09\x09" + header()[8:],
    "nothing": b"",
}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_a_member_that_is_no_array_is_refused(tmp_path, member):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(DataError, match="cannot read"):
        read_arrays(path, {"x": ("float32", 1)}, expected="arrays")


def test_more_than_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("fldet.files.MOST_OF_ARRAYS", 1000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(100, np.float32), b=np.zeros(200, np.float32))
    assert read_arrays(path, {"a": ("float32", 1)}, expected="")["a"].shape == (100,)
    unpacked = []
    monkeypatch.setattr("fldet.files._array", lambda _, name, __: unpacked.append(name))
    with pytest.raises(DataError, match="b is too large"):
        read_arrays(path, {"a": ("float32", 1), "b": ("float32", 1)}, expected="")
    assert unpacked == ["a.npy"]


def test_every_byte_of_an_archive_may_be_wrong(tmp_path):
    buffer, path = BytesIO(), tmp_path / "a.npz"
    np.savez_compressed(buffer, x=np.arange(50, dtype=np.float32))
    whole, wanted = buffer.getvalue(), {"x": ("float32", 1)}
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        said = refusal(place, lambda file: read_arrays(file, wanted, expected="arrays"), path)
        assert str(path) in (said or str(path))


# --- pictures ------------------------------------------------------------------------------------


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
