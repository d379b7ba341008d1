import re

import pytest

from fldet.paper.picture import plot_rows, plot_table
from fldet.paper.rank_agreement import Agreement
from fldet.paper.report import RowReport, TableReport
from fldet.paper.statements import Measured


def line(name, paper, ours, diverged=0, beside=None):
    unused = {"asked": (), "seeds": (), "mean": None, "std": None, "delta": None}
    measured = Measured(ours, diverged)
    return RowReport(name, paper, measured, **unused, figures={}, beside=beside or {})


def report_of(rows, per_class=()):
    agreement = Agreement(None, 0, None, True, None)
    names = ("balance", "balance", "box loss times k", "minival", "AP")
    found = {"per_class": dict(per_class)}
    return TableReport(*names, tuple(rows), agreement, (), 0.0, **found)


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


def test_ap_over_the_weight_of_the_box_loss(tmp_path):
    first = {"table1b 0/.75": Measured((50.0, 51.0))}
    rows = [
        line("CE x4", None, (53.0, 54.0), beside=first),
        line("CE x16", None, (), beside=first),
        line("OHEM x4", None, (52.0, 52.5)),
        line("OHEM by positives", None, (47.0,)),
    ]
    _, svg = plot_table(report_of(rows), "mine", tmp_path)
    text = svg.read_text()
    assert svg.name == "mine_balance.svg"
    for words in ("CE", "OHEM", "OHEM by positives", "1", "4", "box loss times k"):
        assert f"<!-- {words} -->" in text
    assert "<!-- 16 -->" not in text  # no result
    assert text.count("stroke-opacity: 0.35") == 2 + 1 + 1  # bars: CE at 1 and 4, and the others
    unknown = plot_table(report_of([line("CE x4", None, ())]), "none", tmp_path)[1]
    assert "<!-- not run -->" in unknown.read_text()


def test_ap_of_each_class_beside_that_of_another_table(tmp_path):
    rows = [line("CE, weights", None, (50.0,)), line("FL, weights", None, ())]
    per_class = {
        "table1b 0/.75": {"rare$": Measured((10.0, 12.0)), "often": Measured((60.0,))},
        "CE, weights": {"rare$": Measured((20.0,)), "often": Measured((59.0,))},
        "table1b 2/.25": {"rare$": Measured(), "often": Measured()},
        "FL, weights": {"rare$": Measured(missing=2), "often": Measured(diverged=2)},
    }
    _, svg = plot_table(report_of(rows, per_class), "mine", tmp_path)
    text = svg.read_text()
    for words in ("table1b 0/.75", "FL, weights", "11.0", "20.0", "59.0", "diverged", "not run"):
        assert f"<!-- {words} -->" in text
    assert "AP of often [%] -->" in text
    assert len(re.findall("stroke-dasharray: [0-9]", text)) == 2  # lines from the first row
