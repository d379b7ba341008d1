"""A trained model by engine and precision: the table, what fails in it, what it says."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch
from exports import needs_onnx
from typer.testing import CliRunner

from fldet.benchmark import engines as module
from fldet.benchmark.engines import OFFERED, PRECISIONS, engine_table, wanted_pairs
from fldet.benchmark.results import EngineRow, EngineTable
from fldet.cli.benchmark import in_present_words
from fldet.cli.benchmark.text import describe_engines
from fldet.cli.main import app, expand_lists
from fldet.engine.test import test as run_test
from fldet.errors import CheckpointError, UnavailableError, UsageError

pytestmark = pytest.mark.usefixtures("exports_once")
TABLE = EngineTable(
    *("best.pth", ()),
    num_images=5,
    tested_images=7,
    image_shape=(64, 96),
    threads=2,
    timed="boxes",
    machine={"torch": "2"},
)


def with_rows(*rows):
    return dataclasses.replace(TABLE, rows=rows)


def row(engine, precision, ms, lost):
    return EngineRow(engine, precision, ms, 2 * ms, 10 / ms, 0.5 - lost / 100, lost)


@pytest.mark.parametrize(
    ("engines", "precisions", "pairs"),
    [
        (["torch"], ["fp32"], ["torch fp32"]),
        (["openvino", "torch"], ["int8", "fp32"], ["openvino int8", "openvino fp32", "torch fp32"]),
        (["onnxruntime"], PRECISIONS, ["onnxruntime fp32", "onnxruntime int8"]),
    ],
)
def test_each_engine_goes_with_the_precisions_that_it_has(engines, precisions, pairs):
    assert [" ".join(pair) for pair in wanted_pairs(engines, precisions)] == pairs


@pytest.mark.parametrize(
    ("engines", "precisions"),
    [
        (["tensorrt"], ["fp32"]),
        (["torch", "torch"], ["fp32"]),
        (["torch"], ["fp16"]),
        (["torch"], ["fp32", "fp32"]),
        (["torch"], ["int8"]),
        (["onnxruntime"], ["bf16"]),
    ],
)
def test_what_is_unknown_twice_or_nowhere_is_refused(engines, precisions):
    with pytest.raises(UsageError, match=f"{engines[0]}|{precisions[0]}"):
        wanted_pairs(engines, precisions)


@pytest.mark.slow
def test_all_take_turns_and_have_the_ap_of_a_test(tiny_run, tmp_path):
    needs_onnx()
    cfg, work_dir = tiny_run
    found = engine_table(
        *(cfg, work_dir),
        engines=("torch", "onnxruntime"),
        precisions=("fp32", "int8"),
        num_images=2,
        against="mmdet",
    )
    names = ["mmdet fp32", "torch fp32", "onnxruntime fp32", "onnxruntime int8"]
    assert [f"{one.engine} {one.precision}" for one in found.rows] == names
    expected = run_test(cfg, work_dir, work_dir=tmp_path / "test", device="cpu").figures
    assert found.rows[0].ap == expected.main
    assert found.tested_images == expected.num_images
    for one in found.rows:
        assert not one.error
        assert one.median_ms > 0
        assert one.ap == pytest.approx(expected.main, abs=1e-4 if one.precision == "fp32" else 0.2)
        assert one.lost == pytest.approx(100 * (expected.main - one.ap))
    assert found.rows[0].speedup == 1
    assert found.num_images == 2


def test_what_fails_is_a_row_and_the_others_go_on(tiny_run, monkeypatch):
    """Packages that are missing, by a name that is not installed anywhere."""

    def missing(package, *_):
        raise UnavailableError(f"no {package}", hint="pip install it")

    monkeypatch.setattr(module, "require", missing)
    cfg, work_dir = tiny_run
    found = engine_table(*(cfg, work_dir), precisions=("fp32", "int8"), num_images=1, max_images=2)
    good, *failed = found.rows
    assert (good.engine, good.error, found.tested_images) == ("torch", "", 2)
    assert {one.error for one in failed} == {"no onnx; pip install it"}
    assert [one.engine for one in failed] == ["onnxruntime", "onnxruntime", "openvino", "openvino"]


def test_an_engine_that_fails_at_work_is_a_row_too(tiny_run, monkeypatch):
    def fail(_):
        raise CheckpointError("no kernel")

    monkeypatch.setattr(module, "optimized", lambda *_, **__: SimpleNamespace(test_step=fail))
    found = engine_table(
        *tiny_run,
        engines=["torch"],
        precisions=["fp32"],
        num_images=1,
        max_images=2,
        against="mmdet",
    )
    assert [(one.engine, one.error) for one in found.rows] == [
        ("mmdet", ""),
        ("torch", "no kernel"),
    ]


def test_precisions_left_out_are_those_of_the_processor(tiny_run, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "wanted_pairs", lambda *pair: seen.append(pair) or [])
    for has in (True, False):
        monkeypatch.setattr(module, "has_bfloat16", lambda _, has=has: has)
        found = engine_table(*tiny_run, num_images=1)
        assert found.rows == ()
        assert found.fastest() is None
    assert seen == [(tuple(OFFERED), PRECISIONS), (tuple(OFFERED), ("fp32", "int8"))]


def test_the_fastest_is_told_with_the_commands_that_run_it():
    exact, rough = row("torch", "fp32", 10.0, 0.0), row("openvino", "int8", 4.0, 0.7)
    text = describe_engines(
        with_rows(exact, rough, EngineRow("openvino", "bf16", error="none here"))
    )
    for part in (
        "x torch fp32",
        "+0.70",
        "openvino bf16 failed: none here",
        "fastest within 0.5 AP: torch fp32, as in fldet predict CHECKPOINT IMAGES\n",
        "fastest of all: openvino int8, as in fldet export CHECKPOINT --out model.onnx --int8; "
        "fldet predict model.onnx IMAGES --engine openvino\n",
        "5 images, one at a time, of 64x96",
        "AP of 7 images; weights: best.pth",
    ):
        assert part in text
    both = describe_engines(with_rows(row("openvino", "bf16", 4.0, 0.1)))
    assert both.count("fastest") == 1
    assert "--engine openvino --precision bf16" in both
    assert "fastest" not in describe_engines(with_rows(EngineRow("torch", "fp32", error="no")))


def test_the_fastest_by_hand():
    rows = row("torch", "fp32", 10.0, 0.0), row("openvino", "int8", 4.0, 0.7)
    assert with_rows(*rows).fastest().precision == "int8"
    assert with_rows(*rows).fastest(0.5).precision == "fp32"
    assert math.isnan(EngineRow("torch", "bf16", error="x").median_ms)


def test_table_with_engines_is_another_name():
    words = [
        "table",
        "runs/mine",
        "--engines",
        "torch",
        "openvino",
        "--precisions",
        "fp32",
        "--max-images",
        "2",
    ]
    assert in_present_words(words) == ["engines", *words[1:]]
    assert in_present_words(["table", "c.py"]) == ["table", "c.py"]
    assert expand_lists(["benchmark", *words])[3:7] == [
        "--engines",
        "torch",
        "--engines",
        "openvino",
    ]


def test_the_command_ends_with_1_where_one_failed(tiny_run, tmp_path, monkeypatch, capfd):
    result = with_rows(row("torch", "fp32", 10.0, 0.0), EngineRow("openvino", "fp32", error="no"))
    monkeypatch.setattr(module, "engine_table", lambda *_, **__: result)
    out = tmp_path / "engines.json"
    words = ["benchmark", "engines", str(tiny_run[1]), "--out", str(out), "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert json.loads(out.read_text())["result"]["rows"][1]["error"] == "no"
    assert capfd.readouterr().out + done.stdout == "torch fp32 10.0\n"
    done = CliRunner().invoke(app, ["benchmark", "engines", "shapes/retinanet_r18_shapes.py"])
    assert done.exit_code == 2


def test_each_turn_begins_with_a_rest_and_a_run_that_does_not_count(monkeypatch):
    """Threads of an engine spin on after its work, and would take time from the next one."""
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    batch = {"inputs": [torch.zeros(3, 4, 4)], "data_samples": []}
    step = torch.nn.Module()
    runs = []
    step.test_step = runs.append
    times = module._times_in_turns([step, step], [batch] * 5)
    assert times.shape == (2, 2)
    assert slept == [module.REST] * 10
    assert len(runs) == 20  # two of each, of which the second counts
