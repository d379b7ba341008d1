"""What ``fldet test`` and ``fldet benchmark`` say, and with which exit code they end."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fldet.cli import benchmark
from fldet.cli.main import app
from fldet.engine.test import check_precision
from fldet.results import CocoFigures, SpeedComparison, SpeedResult, TestResult


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
