"""Pictures of times."""

import dataclasses

import cv2
import pytest

from fldet.benchmark.pictures import conditions, plot_stages, plot_table
from fldet.benchmark.results import SpeedCell, SpeedResult, SpeedTable

RESULT = SpeedResult(10.0, 12.0, 5, (64, 96), "cpu", "float32", 1, stages_ms={"backbone": 6.0})


def texts(path):
    """What an SVG says, read off the comments that Matplotlib leaves before each text."""
    return [line.strip()[5:-4] for line in path.read_text().splitlines() if "<!-- " in line]


def test_a_bar_for_each_stage(tmp_path):
    stages = {"load": 4.0, "forward": 30.0, "backward": 90.0}
    step = dataclasses.replace(RESULT, stages_ms=stages, training=True, batch_size=2)
    png, svg = plot_stages(step, tmp_path / "stages", title="r50")
    assert cv2.imread(str(png)).std() > 5
    said = texts(svg)
    assert "r50, training step of 2 images of 64x96: 10.0 ms" in said
    for text in ("30.0 ms, 25 %", "90.0 ms, 75 %", "4.0 ms, not counted"):
        assert any(text in one for one in said)


def test_a_line_for_each_depth_and_the_papers(tmp_path):
    cells = tuple(
        SpeedCell(depth, scale, paper, dataclasses.replace(RESULT, median_ms=depth * scale / 100))
        for depth, scale, paper in ((50, 400, 64), (50, 500, 72), (101, 400, 81))
    )
    failed = SpeedCell(101, 500, 90, None, "out of memory")
    _, svg = plot_table(SpeedTable("c", (*cells, failed)), tmp_path / "table")
    said = texts(svg)
    for text in ("ResNet-50", "ResNet-101, paper (Nvidia M40)", "400", conditions(RESULT)):
        assert text in said


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no stages"):
        plot_stages(dataclasses.replace(RESULT, stages_ms={}), tmp_path / "x", title="x")
    with pytest.raises(ValueError, match="no times"):
        plot_table(SpeedTable("c", (SpeedCell(50, 400, None, None, "why"),)), tmp_path / "x")


def test_conditions_name_how_the_network_ran():
    fast = dataclasses.replace(RESULT, optimized=True, compiled=True, cuda_graph=True)
    assert conditions(fast) == (
        "cpu, float32, optimized copy, compiled, CUDA graph, threads: 1, weights: random"
    )
