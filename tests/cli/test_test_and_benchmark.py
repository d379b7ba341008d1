"""What ``fldet test`` and ``fldet benchmark`` say, and with which exit code they end."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fldet.benchmark.results import SpeedCell, SpeedComparison, SpeedResult, SpeedTable
from fldet.cli import benchmark
from fldet.cli.main import app
from fldet.engine.results import TestResult
from fldet.engine.test import check_precision
from fldet.evaluation.figures import CocoFigures


def figures(ap):
    return CocoFigures({"AP": ap}, {"cat": ap}, 5, 50, "faster")


@pytest.mark.parametrize(
    ("tested_ap", "code", "verdict"),
    [
        (0.398, 0, "difference -0.20 points, within the 0.5 allowed"),
        (0.380, 3, "difference -2.00 points, MORE than the 0.5 allowed"),
    ],
)
def test_a_missed_tolerance_ends_with_3(monkeypatch, capfd, tiny_config, tested_ap, code, verdict):
    tested = figures(tested_ap)
    check = check_precision(figures(0.4), tested, 0.5)
    result = TestResult(
        tested, Path("a.pth"), Path("work"), None, (), 1.0, "bfloat16", optimized=True, check=check
    )
    monkeypatch.setattr("fldet.engine.test.test", lambda *args, **options: result)
    done = CliRunner().invoke(app, ["test", str(tiny_config), "a.pth", "--compare"])
    assert done.exit_code == code
    assert verdict in describe_output(capfd, done)


def describe_output(capfd, done):
    return done.output + capfd.readouterr().out


def test_several_processes_cannot_compare(tiny_config):
    done = CliRunner().invoke(app, ["test", str(tiny_config), "a.pth", "--compare", "--gpus", "2"])
    assert done.exit_code == 2


def test_a_speed_is_described_with_its_conditions():
    speed = SpeedResult(
        *(10.0, 12.0, 50, (64, 96), "cpu", "bfloat16", 1, 15.0, 98.0),
        stages_ms={"backbone": 6.0},
        optimized=True,
        compiled=True,
        against=SpeedComparison("mmdet", 40.0, 4.0),
        timed="boxes",
        machine={"torch": "2"},
    )
    text = benchmark.describe(speed)
    for part in (
        "median 10.0 ms per image, 90th percentile 12.0 ms, 99th 15.0 ms; 98.00 images per second",
        "x4.00 as fast as mmdet in float32 (median 40.0 ms",
        "backbone 6.0",
        "cpu, an optimized copy in bfloat16, compiled, 1 CPU threads",
        "timed: boxes",
        "torch 2",
    ):
        assert part in text


SPEED = SpeedResult(
    *(10.0, 12.0, 5, (64, 96), "cpu", "float32", 1, 15.0, 98.0),
    stages_ms={"backbone": 6.0, "head": 2.0},
    warmup=3,
    gflop=2.0,
    machine_gflops={"conv": 800.0, "matmul": 700.0},
    peak_share=0.25,
    peak_memory_mib=7.4,
    memory="a rise",
)
TABLE = SpeedTable(
    "retinanet/rDEPTH_fpn_1x.py",
    (
        SpeedCell(50, 400, 64, SPEED),
        SpeedCell(50, 500, 72, None, "out of memory"),
        SpeedCell(101, 400, 81, dataclasses.replace(SPEED, median_ms=20.0, peak_share=0.3)),
        SpeedCell(101, 500, None, dataclasses.replace(SPEED, median_ms=30.0)),
    ),
)


def run_benchmark(capfd, *arguments):
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    captured = capfd.readouterr()
    return done.exit_code, done.stdout + captured.out, done.stderr + captured.err


def test_work_and_memory_are_described():
    text = benchmark.describe(SPEED)
    for part in (
        "2 GFLOP in the median time: 25% of the machine's measured peak (GFLOP/s in float32: conv "
        "800, matmul 700)",
        "peak memory 7 MiB: a rise",
        "5 images, one at a time, of 64x96 (most frequent size), after 3 for warming up; weights: "
        "random",
    ):
        assert part in text
    unknown = dataclasses.replace(SPEED, gflop=float("nan"), peak_memory_mib=float("nan"))
    text = benchmark.describe(unknown)
    assert "operations not counted; the machine's measured peak" in text
    assert "peak memory unknown" in text


def test_a_training_step_is_described_as_such():
    step = dataclasses.replace(SPEED, training=True, batch_size=2)
    text = benchmark.describe(step)
    assert "median 10.0 ms per training step of 2 images" in text
    assert "5 steps, of 64x96" in text


def test_a_table_has_the_papers_times_beside_and_says_what_failed():
    lines = benchmark.describe_table(TABLE).splitlines()
    assert lines[0].split() == ["median", "ms", "400", "px", "500", "px"]
    assert lines[2].split() == ["ResNet-50", "10.0", "(64)", "failed", "(72)"]
    assert lines[3].split() == ["ResNet-101", "20.0", "(81)", "30.0"]
    assert "in brackets: Table 1e of the paper, on an Nvidia M40" in lines
    assert "R50, 500 px failed: out of memory" in lines
    assert any("25% to 30% of the machine's measured peak" in line for line in lines)


def test_a_table_is_written_as_it_comes_and_a_failed_cell_ends_with_1(monkeypatch, capfd, tmp_path):
    file, sizes = tmp_path / "table.json", []

    def fake(config, *, on_cell, depths, scales, **options):
        assert (config, depths, scales) == (None, [50, 101], [400, 500])
        for count in range(1, 5):
            on_cell(SpeedTable(TABLE.config, TABLE.cells[:count]))
            sizes.append(len(json.loads(file.read_text())["result"]["cells"]))
        return TABLE

    monkeypatch.setattr("fldet.benchmark.table.benchmark_table", fake)
    lists = ["--depths", 50, "--depths", 101, "--scales", 400, "--scales", 500]
    code, out, err = run_benchmark(capfd, *lists, "--out", file, "--out-dir", tmp_path / "drawn")
    assert (code, sizes) == (1, [1, 2, 3, 4])
    assert "2 of 4: ResNet-50, 500 px: out of memory" in err
    content = json.loads(file.read_text())
    assert content["command"] == "benchmark --scales"
    assert content["result"]["cells"][1]["error"] == "out of memory"
    names = [f"speed_table1e.{ending}" for ending in ("json", "png", "svg")]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == names
    assert all(str(tmp_path / "drawn" / name) in out for name in names)


def test_a_time_of_training_does_not_pass_for_one_of_an_image(monkeypatch, capfd, tmp_path):
    step = dataclasses.replace(SPEED, training=True, batch_size=2)
    monkeypatch.setattr("fldet.benchmark.training.benchmark_training", lambda cfg, **options: step)
    config, drawn = "retinanet/r50_fpn_1x.py", tmp_path / "drawn"
    code, out, _ = run_benchmark(capfd, config, "--train", "--json", "--out-dir", drawn)
    assert code == 0
    assert json.loads(out)["command"] == "benchmark --train"  # analyze speed-accuracy refuses it
    assert (drawn / "speed_r50_fpn_1x_train.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "CONFIG is missing"),
        (["c.py", "w.pth", "--depths", "50"], "CHECKPOINT does not go with --depths"),
        (["--depths", "50", "--train"], "--train does not go with --depths"),
        (["c.py", "--train", "--precision", "bf16"], "--precision does not go with --train"),
        (["c.py", "--batch-size", "4"], "--batch-size does not go without --train"),
        (["c.py", "--shape", "800"], "--shape '800' is not a size"),
        (["c.py", "--out", __file__], "exists already"),
    ],
)
def test_options_that_do_not_fit(capfd, arguments, message):
    code, _, err = run_benchmark(capfd, *arguments)
    assert code == 2
    assert message in err
