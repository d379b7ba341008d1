import json

import pytest
from typer.testing import CliRunner

from fldet.cli.main import app


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
    assert len(result) == (1 if names else 8)
    fl = result["table3"][1]
    assert fl["row"]["config"] == "configs/paper/table3/appendix_fl.py"
    assert fl["delta"] == pytest.approx(-0.3)
    assert fl["ours"]["figures"]["AP_L"] is None


def test_an_unknown_table_is_wrong_usage():
    result = run("show", "table9")
    assert result.exit_code == 2
    assert "the paper has no 'table9'" in result.output
