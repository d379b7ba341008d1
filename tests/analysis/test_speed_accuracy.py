"""Figure 2: the paper's points, measured ones, and which of them form the envelope."""

import json
from pathlib import Path

import cv2
import pytest

from fldet.analysis.speed_accuracy import (
    Point,
    beats,
    plot_speed_accuracy,
    points_in,
    speed_accuracy,
)
from fldet.config.load import CONFIGS
from fldet.errors import DataError

FIGURES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


def write(path: Path, command, result):
    path.write_text(json.dumps({"schema": 1, "command": command, "result": result}))
    return path


@pytest.fixture
def measured(tmp_path):
    def make(name, ap, ms, device="cpu", **machine):
        test = {"figures": {"summary": {"AP": ap}}}
        speed = {"median_ms": ms, "device": device, "precision": "float32", "threads": 2}
        speed |= {"machine": machine} if machine else {}
        files = f"{name}_{machine.get('processor', device)}"
        return (
            name,
            write(tmp_path / f"{files}_test.json", "test", test),
            write(tmp_path / f"{files}_speed.json", "benchmark", speed),
        )

    return make


def envelope(result, comparison="published"):
    return {
        point.name
        for group in result.groups
        if group.comparison == comparison
        for point in group.points
        if point.on_envelope
    }


def test_points_of_the_paper():
    result = speed_accuracy()
    retinanets, others = result.groups[:2], result.groups[2:]
    assert [group.name for group in retinanets] == ["RetinaNet R50", "RetinaNet R101"]
    assert all(group.hardware == "Nvidia M40" and group.is_line for group in retinanets)
    assert [(p.ap, p.ms) for p in retinanets[0].points] == [
        (30.5, 64),
        (32.5, 72),
        (34.3, 98),
        (35.1, 121),
        (35.7, 153),
    ]
    assert (retinanets[1].points[-1].ap, retinanets[1].points[-1].ms) == (37.8, 198)
    assert {g.hardware: [(p.name, p.ap, p.ms) for p in g.points] for g in others} == {
        "Nvidia M40": [("FPN Faster R-CNN", 36.2, 172)],
        "Nvidia Titan X (Maxwell)": [
            ("SSD321", 28.0, 61),
            ("DSSD321", 28.0, 85),
            ("SSD513", 31.2, 125),
            ("DSSD513", 33.2, 156),
        ],
        "extrapolated by the paper": [("R-FCN", 29.9, 85)],
    }
    assert set(result.not_plotted) == {
        "YOLOv2",
        "Faster R-CNN+++",
        "Faster R-CNN by G-RMI",
        "Faster R-CNN w TDM",
    }
    assert "21.6" in result.not_plotted["YOLOv2"]


SYSTEMS = json.loads((CONFIGS / "paper" / "systems.json").read_text())["systems"]


def test_the_seven_rows_of_table_2_have_all_six_figures():
    rows = {one["name"]: [one[name] for name in FIGURES] for one in SYSTEMS}
    assert len(rows) == len(SYSTEMS) == 10
    whole = {name for name, row in rows.items() if None not in row}
    assert {name for name in rows if name not in whole} == {"SSD321", "DSSD321", "R-FCN"}
    for name in whole:
        ap, ap50, ap75, small, medium, large = rows[name]
        assert small < medium < large, name
        assert ap75 < ap50, name
        assert small < ap < large, name


def test_a_time_has_its_hardware_and_a_config_is_there():
    for one in SYSTEMS:
        assert (one["ms"] is None) == (one["hardware"] is None), one["name"]
        assert not one["plotted"] or one["ms"], one["name"]
        assert one["config"] is None or (CONFIGS / one["config"]).is_file(), one["name"]


def test_in_the_high_accuracy_regime_only_retinanets_are_on_the_envelope():
    """SSD321 is faster than any RetinaNet; the paper leaves AP below 30 aside."""
    assert envelope(speed_accuracy()) - {"SSD321"} == {
        "R50-400",
        "R50-500",
        "R50-700",
        "R101-500",
        "R101-600",
        "R101-700",
        "R101-800",
    }


def test_measured_points_are_compared_on_their_own_hardware_only(measured):
    points = [
        measured("good", 0.4, 50.0),
        measured("bad", 0.3, 60.0),
        measured("gpu", 0.39, 5.0, "cuda:0 (X)"),
    ]
    result = speed_accuracy(points)
    assert [group.hardware for group in result.groups[-2:]] == [
        "cpu, float32, threads: 2",
        "cuda:0 (X), float32",
    ]
    assert envelope(result, "cpu, float32, threads: 2") == {"good"}
    assert envelope(result, "cuda:0 (X), float32") == {"gpu"}
    assert envelope(result) == envelope(speed_accuracy())
    assert result.groups[-2].points[0].ap == pytest.approx(40)
    assert "good" in str(result)


def test_runs_of_a_tier_are_averaged_over_their_seeds(measured, tmp_path):
    for seed, ap, ms in ((0, 0.2, 30.0), (1, 0.3, 50.0)):
        _, test, speed = measured(f"run{seed}", ap, ms)
        folder = tmp_path / "laptop" / "ssd_r18" / f"seed_{seed}"
        (folder / "test").mkdir(parents=True)
        test.rename(folder / "test" / "result.json")
        speed.rename(folder / "benchmark.json")
    (tmp_path / "laptop" / "not_timed" / "seed_0" / "test").mkdir(parents=True)
    (tmp_path / "laptop" / "not_timed" / "seed_0" / "test" / "result.json").write_text("{}")
    (point,) = speed_accuracy(points_in(tmp_path / "laptop")).groups[-1].points
    assert (point.name, point.ap, point.ms) == (
        "small SSD513",
        pytest.approx(25),
        pytest.approx(40),
    )
    with pytest.raises(DataError, match="was tested and timed"):
        points_in(tmp_path)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((30, 50), (30, 60), True),
        ((31, 50), (30, 50), True),
        ((30, 50), (30, 50), False),  # equal: both stay
        ((31, 60), (30, 50), False),
    ],
)
def test_what_beats_what(a, b, expected):
    assert beats(Point("a", *a), Point("b", *b)) is expected


def test_files_in_the_wrong_order_or_of_another_kind(measured, tmp_path):
    name, test, speed = measured("a", 0.4, 50.0)
    with pytest.raises(DataError, match="is of the command 'benchmark'") as error:
        speed_accuracy([(name, speed, test)])
    assert "in this order" in error.value.hint
    with pytest.raises(DataError, match=r"not found: .*none"):
        speed_accuracy([(name, test, tmp_path / "none.json")])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match=r"its content is \[\]"):
        speed_accuracy([(name, tmp_path / "list.json", speed)])
    (tmp_path / "text.json").write_text("AP 0.4")
    with pytest.raises(DataError, match="is not JSON"):
        speed_accuracy([(name, tmp_path / "text.json", speed)])
    with pytest.raises(DataError, match="AP is None"):
        speed_accuracy([measured("nan", None, 50.0)])


def test_pictures_with_and_without_measured_points(measured, tmp_path):
    paths = [
        *plot_speed_accuracy(speed_accuracy(), tmp_path / "a"),
        *plot_speed_accuracy(speed_accuracy([measured("slow", 0.5, 3000.0)]), tmp_path / "b"),
    ]
    assert [path.name for path in paths] == ["a.png", "a.svg", "b.png", "b.svg"]
    shapes = [cv2.imread(str(path)).shape for path in paths if path.suffix == ".png"]
    assert shapes == [(780, 1150, 3), (780, 1800, 3)]  # measured points have a panel of their own
    assert "Nvidia M40" in paths[1].read_text()
    assert "Measured" in paths[3].read_text()
    assert "Measured" not in paths[1].read_text()


def test_times_on_two_processors_are_no_two_seeds(measured):
    points = [measured("one", 0.3, ms, processor=name) for name, ms in (("A", 9), ("B", 900))]
    groups = speed_accuracy(points).groups[-2:]
    assert {group.hardware: group.points[0].ms for group in groups} == {
        "A, float32, threads: 2": 9,
        "B, float32, threads: 2": 900,
    }
