"""What ``fldet test`` says, and with which exit code it ends."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

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
    weights = tiny_config.with_name("a.pth")
    weights.touch()
    done = CliRunner().invoke(app, ["test", str(tiny_config), str(weights), "--compare"])
    assert done.exit_code == code
    assert verdict in describe_output(capfd, done)


def describe_output(capfd, done):
    return done.output + capfd.readouterr().out


def test_several_processes_cannot_compare(tiny_config):
    weights = tiny_config.with_name("a.pth")
    weights.touch()
    words = ["test", str(tiny_config), str(weights), "--compare", "--gpus", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2


def test_a_work_dir_alone_is_tested_into_itself(fldet, tiny_run, tmp_path):
    work_dir = shutil.copytree(tiny_run[1], tmp_path / "moved")
    done = fldet("test", work_dir, "--device", "cpu", "--max-images", "2")
    assert done.returncode == 0, done.stderr
    assert "2 images" in done.stdout
    assert (work_dir / "test" / "result.json").is_file()


def test_a_config_alone_is_not_enough(fldet, tiny_config):
    done = fldet("test", tiny_config)
    assert done.returncode == 2
    assert "no checkpoint" in done.stderr
