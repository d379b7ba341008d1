import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fldet.cli.main import app, expand_lists
from fldet.cli.paper.view import View, minutes_left
from fldet.paper import read_tables
from fldet.runs.run import Run, Step
from fldet.runs.runner import Status


def run(*arguments):
    return CliRunner().invoke(app, ["paper", *map(str, arguments)])


def write_result(work_dirs, name):
    file = work_dirs / name / "test" / "result.json"
    file.parent.mkdir(parents=True)
    summary = {"AP": 0.337, "AP50": 0.521, "AP75": 0.36, "AP_S": 0.16, "AP_M": 0.37, "AP_L": None}
    figures = {"summary": summary, "num_images": 5000}
    file.write_text(json.dumps({"result": {"figures": figures}}))


def test_list_names_every_table_and_config(capfd):
    assert run("list").exit_code == 0
    text = capfd.readouterr().out
    for name in ("table1a", "table1b", "table1c", "table1d", "table1e", "table2", "table3"):
        assert f"{name}  " in text
    assert "OHEM 1:3 128/.5  configs/paper/table1d/ohem_1to3_128_0.5.py" in text


def test_show_puts_ours_beside_the_papers(tmp_path, capfd):
    write_result(tmp_path, "fl_gamma_2")
    assert run("show", "table1b", "--work-dirs", tmp_path).exit_code == 0
    lines = capfd.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("2/.25")).split()
    assert row[1:6] == ["34.0/52.5/36.5", "33.7/52.1/36.0", "16.0/37.0/-", "-0.3", "5000"]
    other = next(line for line in lines if line.startswith("0/.75")).split()
    assert other[1:6] == ["31.1/49.4/33.0", "-", "-", "-", "-"]


def test_show_prints_markdown(tmp_path, capfd):
    assert run("show", "table2", "--markdown", "--work-dirs", tmp_path).exit_code == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("### table2")
    assert lines[4].startswith("| R101-800 | 39.1/59.1/42.3 | 21.8/42.7/50.2 | configs/paper/")


@pytest.mark.parametrize("names", [[], ["table3"]])
def test_json_has_the_figures_of_every_row(tmp_path, capfd, names):
    write_result(tmp_path, "appendix_fl")
    assert run("show", *names, "--json", "--work-dirs", tmp_path).exit_code == 0
    result = json.loads(capfd.readouterr().out)["result"]
    assert len(result) == (1 if names else len(read_tables()))
    fl = result["table3"][1]
    assert fl["row"]["config"] == "configs/paper/table3/appendix_fl.py"
    assert fl["delta"] == pytest.approx(-0.3)
    assert fl["ours"]["figures"]["AP_L"] is None


def test_an_unknown_table_is_wrong_usage():
    result = run("show", "table9")
    assert result.exit_code == 2
    assert "the paper has no 'table9'" in result.output


# --- run and report ---


def test_a_dry_run_says_what_would_be_run_and_for_how_long(tmp_path, capfd):
    tier = tmp_path / "mine.py"
    tier.write_text('"""Mine.\n\nMinutes: 3.2 a run.\n"""\ntrain_cfg = dict(max_iters=3)\n')
    options = ["--tier", tier, "--work-dir", tmp_path, "--dry-run"]
    assert run("run", "table3", "--rows", "FL", "--seeds", "4", *options).exit_code == 0
    text = capfd.readouterr().out
    config = tmp_path / "mine" / "configs" / "fl_gamma_2.py"
    assert "fl_gamma_2/seed_4  (table3 FL)" in text
    assert f"  fldet train {config} --work-dir {tmp_path}/mine/fl_gamma_2/seed_4 --seed 4" in text
    assert "1 of 1 runs to do, 1 at a time, for about 3 min (0 are done)" in text
    assert not (tmp_path / "mine" / "fl_gamma_2").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table3", "--executor", "pbs"], "unknown executor 'pbs'"),
        (["table3", "--cluster-options", "a=1"], "--cluster-options without a cluster"),
        (["table2"], "table2 is not for the tier laptop: it varies backbone and schedule"),
        (["classes"], "classes is not for the tier laptop: it has weights of the classes"),
        (["table3", "--rows", "FLL"], "no row 'FLL' in table3"),
        (["table3", "--tier", "desktop"], "no tier 'desktop'"),
        (["table3", "--tier", "full"], "--gpus 1 trains with 2 images a step, the paper with 16"),
    ],
)
def test_wrong_usage_of_run(tmp_path, arguments, says):
    result = run("run", *arguments, "--work-dir", tmp_path, "--dry-run")
    assert result.exit_code == 2
    assert says in result.output


def test_a_report_of_nothing_says_so(tmp_path, capfd):
    folder = tmp_path / "out"
    assert run("report", "table3", "--work-dir", tmp_path, "--out-dir", folder).exit_code == 0
    assert "| FL | 34.0 | not run | - | 0 | - | 0.0 | - |" in capfd.readouterr().out
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["laptop.json", "laptop.md", "laptop_table3.png", "laptop_table3.svg"]
    assert json.loads((folder / "laptop.json").read_text())["command"] == "paper report"


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        (
            ["table1b", "--seeds", "0", "1", "--jobs", "2"],
            ["table1b", "--seeds", "0", "--seeds", "1", "--jobs", "2"],
        ),
        (["--seeds", "0", "1", "table1b"], ["--seeds", "0", "--seeds", "1", "table1b"]),
        (["--rows", "OHEM 128/.7", "FL"], ["--rows", "OHEM 128/.7", "--rows", "FL"]),
    ],
)
def test_seeds_and_rows_take_several_values(given, expanded):
    assert expand_lists(["paper", "run", *given]) == ["paper", "run", *expanded]
    assert expand_lists(["other", *given]) == ["other", *given]


def status(name, state, seed=0, **changes):
    steps = (Step("train", ("train",)),)
    made = Run((f"table1b {name}",), seed, Path("c.py"), Path("w", name, f"seed_{seed}"), "", steps)
    return Status(made, state, **changes)


def test_lines_where_there_is_no_terminal(capfd):
    ended = status("a", "done", ap=31.25, seconds=120)
    with View(jobs=1, minutes=None) as view:
        view.show([status("a", "train"), status("b", "waiting")])
        view.show([ended, status("b", "train", iteration=3, iterations=9)])
        view.show([ended, status("b", "failed", reason="no room")])
    assert capfd.readouterr().err.splitlines() == [
        "a/seed_0: train",
        "a/seed_0: done, AP 31.2; 1 of 2 runs done, about 2 min left",
        "b/seed_0: train 3/9",
        "b/seed_0: failed",
        "  no room",
        "  see w/b/seed_0/log.txt",
    ]


def test_a_table_of_rows_and_seeds_on_a_terminal():
    view = View(jobs=2, minutes=3.0)
    shown = [
        status("a", "done", ap=30.0, seconds=60),
        status("a", "train", 1),
        status("b", "queued"),
    ]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view._table(shown))
    text = console.export_text()
    assert "done, AP 30.0" in text
    assert "seed 1" in text
    assert "1 of 3 runs done, about 1 min left" in text


def test_time_left_is_of_what_ended_or_of_what_the_tier_states():
    waiting = status("b", "waiting")
    assert minutes_left([waiting, waiting], 2, 3.0) == 3.0
    assert minutes_left([waiting], 1, None) is None
    done = status("a", "done", seconds=300)
    assert minutes_left([done, waiting, status("c", "train", seconds=120)], 1, 3.0) == 8
    assert minutes_left([done], 1, None) == 0
