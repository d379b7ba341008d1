import pytest

from fldet.paper.picture import plot_rows
from fldet.paper.report import RowReport
from fldet.paper.statements import Measured


def line(name, paper, ours, diverged=0):
    unused = {"asked": (), "seeds": (), "mean": None, "std": None, "delta": None}
    measured = Measured(ours, diverged)
    return RowReport(name, paper, measured, **unused, figures={}, beside={})


ROWS = [
    line("plain", 31.1, (46.0, 47.5)),
    line("wild", 0.0, (), diverged=2),
    line("half", 30.0, (44.0,), diverged=1),
    line("later", 29.0, ()),
]


def test_both_halves_and_what_did_not_end(tmp_path):
    png, svg = plot_rows("table1a, tier laptop", "AP [%]", ROWS, tmp_path / "picture")
    assert png.read_bytes()[:4] == b"\x89PNG"
    text = svg.read_text()
    for words in (
        "paper: AP [%]",
        "here: AP [%]",
        "46.8",
        "diverged",
        "44.0, 1 diverged",
        "not run",
    ):
        assert f"<!-- {words} -->" in text


@pytest.mark.parametrize("ours", [(), (5.0,)])
def test_controls_have_no_half_of_the_paper(tmp_path, ours):
    _, svg = plot_rows("controls", "AP [%]", [line("hinge", None, ours)], tmp_path / "picture")
    assert "paper:" not in svg.read_text()
