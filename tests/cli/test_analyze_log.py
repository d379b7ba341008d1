import json

from typer.testing import CliRunner

from fldet.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, ["analyze", "log", *map(str, arguments)])


def work_dir(root, name):
    file = root / name / "20260101_000000" / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    records = [
        {"loss": 2.0, "loss_cls": 1.5, "time": 0.5, "data_time": 0.1, "iter": 50, "step": 50},
        {"coco/AP": 0.3456, "val/loss": 1.25, "step": 0},
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file.parent.parent.parent


def test_text_has_a_column_for_each_run_and_names_the_pictures(tmp_path, capfd):
    runs = [work_dir(tmp_path, name) for name in ("one", "two")]
    assert run(*runs, "--out-dir", tmp_path / "out").exit_code == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["one", "two"]
    rows = [" ".join(line.split()) for line in lines]
    assert "last loss 2.0000 2.0000" in rows
    assert "last val loss 1.2500 1.2500" in rows
    assert "best AP 0.346 at 50 0.346 at 50" in rows
    assert "waiting for data 20 % 20 %" in rows
    assert "time of training 0:00:25 0:00:25" in rows
    assert f"picture {tmp_path / 'out' / 'log_one_two.png'}" in rows
    assert (tmp_path / "out" / "log_one_two.svg").is_file()


def test_json_has_the_same(tmp_path, capfd):
    folder = work_dir(tmp_path, "one")
    assert run(folder, "--out-dir", tmp_path, "--smooth", 3, "--json").exit_code == 0
    result = json.loads(capfd.readouterr().out)["result"]
    assert result["smooth"] == 3
    assert result["runs"][0]["losses"] == {"loss": 2.0, "loss_cls": 1.5}
    assert result["runs"][0]["best_iteration"] == 50
    assert len(result["pictures"]) == 2


def test_a_folder_that_is_no_run_fails_in_three_lines(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "no scalars of a training in" in result.output


def test_smooth_zero_is_wrong_usage(tmp_path):
    assert run(tmp_path, "--smooth", 0).exit_code == 2
