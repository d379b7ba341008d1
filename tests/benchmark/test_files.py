"""Times as files, and the functions that Python programs call."""

import json
import subprocess
import sys

import pytest

import fldet
from fldet.benchmark.files import write_speed
from fldet.benchmark.results import SpeedCell, SpeedResult, SpeedTable

STAGES = {"backbone": 6.0}
IMAGE = SpeedResult(10.0, 12.0, 5, (64, 96), "cpu", "float32", 1, stages_ms=STAGES)
STEP = SpeedResult(10.0, 12.0, 5, (64, 96), "cpu", "float32", 1, stages_ms=STAGES, training=True)
TWO_STAGE = SpeedResult(10.0, 12.0, 5, (64, 96), "cpu", "float32", 1)
TABLE = SpeedTable("c.py", (SpeedCell(50, 400, None, IMAGE),))
FAILED = SpeedTable("c.py", (SpeedCell(50, 400, None, None, "why"),))


@pytest.mark.parametrize(
    ("result", "command", "stem", "drawn"),
    [
        (IMAGE, "benchmark", "speed_r50", True),
        (STEP, "benchmark --train", "speed_r50_train", True),
        (TWO_STAGE, "benchmark", "speed_r50", False),
        (TABLE, "benchmark --scales", "speed_r50", True),
        (FAILED, "benchmark --scales", "speed_r50", False),
    ],
    ids=["image", "step", "no stages", "table", "nothing but failures"],
)
def test_pictures_where_there_is_something_to_draw(tmp_path, result, command, stem, drawn):
    out, folder = tmp_path / "speed.json", tmp_path / "drawn"
    written = write_speed(result, "r50", out=out, out_dir=folder)
    endings = ["json", "png", "svg"] if drawn else ["json"]
    assert written == [out, *(folder / f"{stem}.{ending}" for ending in endings)]
    assert sorted(folder.iterdir()) == written[1:]
    assert out.read_text() == written[1].read_text()
    assert json.loads(out.read_text())["command"] == command


def test_nothing_is_written_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_speed(IMAGE, "r50") == []
    assert list(tmp_path.iterdir()) == []


def test_functions_of_the_room_are_loaded_at_first_use():
    code = "import fldet, sys; fldet.benchmark; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert fldet.benchmark.benchmark.__module__ == "fldet.benchmark.predict"
    assert fldet.benchmark.benchmark_training.__module__ == "fldet.benchmark.training"
    assert fldet.benchmark.speed_table.__module__ == "fldet.benchmark.table"
    with pytest.raises(AttributeError, match="has no attribute 'speed'"):
        fldet.benchmark.speed  # noqa: B018
