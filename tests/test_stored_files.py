"""Files that fldet has written and reads again: with any content, a result or an error of ours."""

import json
import math
import os
import zipfile
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from stored_content import (
    BOXES,
    LOGITS,
    PROCEDURE,
    SAMPLE,
    errors,
    outcome,
    places,
    read_curves_of_sample,
    refusal,
    replaced,
    speed,
)

from fldet.analysis.errors.result import load
from fldet.analysis.loss_cdf.curves import (
    Sample,
    loss_cdf_of,
    procedure_text,
    read_curves,
    write_json,
)
from fldet.analysis.speed_accuracy import speed_accuracy
from fldet.analysis.thresholds.result import (
    ClassThreshold,
    HeldOut,
    ThresholdAnalysis,
)
from fldet.analysis.thresholds.result import load as load_thresholds
from fldet.analysis.thresholds.result import save as save_thresholds
from fldet.anchors.cover import BoxSet
from fldet.anchors.report import compute
from fldet.errors import DataError, shorten
from fldet.evaluation.thresholds import read_thresholds
from fldet.files import read_arrays
from fldet.paper.asked import asked_for
from fldet.paper.plan import runs_in
from fldet.paper.report import _machines, _processes
from fldet.paper.tiers import find_tier
from fldet.report.content import find_loss_cdf, report_of
from fldet.report.page import render
from fldet.report.record import read_run
from fldet.runs.cluster import read_job
from fldet.runs.outcome import read_outcome
from fldet.runs.run import Record, Run, read_record, result_of

DEEP = "@deep@"

VALUES: tuple[Any, ...] = (
    *(None, True, 5, -1, 10**13, 1e308, 10**400, math.nan, math.inf),
    *("", "x", "\ud800", "a\0b", "../../etc", "$x", "x" * 300, "x" * 20_000, DEEP),
    *([], [1], ["x"], [None] * 4, [[]], {}, {"a": 1}, {"a": {}}),
)


def mutations(content):
    """Yields a description and the text of JSON with one value replaced or left out."""
    for place in places(content):
        for value in (*VALUES, KeyError):
            text = json.dumps(replaced(content, place, value))
            yield f"{place}: {shorten(value, 40)}", text.replace(f'"{DEEP}"', "[" * 200_000)


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


def loss_curves(folder):
    curves = loss_cdf_of(Sample(LOGITS, LOGITS, PROCEDURE))
    return json.loads(write_json(curves, folder / "loss_cdf_r50_val.json").read_text())


def read_loss_curves(path):
    curves = read_curves(path)
    return f"{curves}", procedure_text(curves), find_loss_cdf("r50", path.parent, [])


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


def boxes(folder):
    with np.load(BOXES.save(folder / "whole.npz")) as content:
        return {name: content[name] for name in content.files}


def read_boxes(path):
    return str(compute(BoxSet.load(path)))


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
