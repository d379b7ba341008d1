"""The table over all benchmark scripts."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "tools" / "benchmarks"


@pytest.fixture
def run_all(monkeypatch):
    return loaded("run_all", monkeypatch)


@pytest.fixture
def gpu_day(run_all, monkeypatch):
    return loaded("gpu_day", monkeypatch)


def loaded(name, monkeypatch):
    """Returns a script as a module, which others can import."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_every_script_prints_json_and_those_that_can_run_on_the_gpu(run_all):
    todo = run_all.commands("cuda", None, "data/coco")
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"run_all", "gpu_day", "timing"}
    assert scripts <= set(todo)
    for name in scripts:
        text = (FOLDER / f"{name}.py").read_text()
        assert '"--json"' in text
        assert ("--device" in todo[name]) == ('"--device"' in text)
    assert todo["data_pipeline"][-1] == "data/coco"
    assert todo["predict"][-2:] == ["--device", "cuda"]
    assert any("--cuda-graph" in command for command in todo.values())
    assert set(run_all.commands("cpu", None, None)) == scripts
    assert set(run_all.commands("cpu", ["startup"], None)) == {"startup"}


def test_an_unknown_script_is_refused(run_all):
    with pytest.raises(SystemExit, match=r"no such benchmark: nms; there is assignment"):
        run_all.commands("cpu", ["nms"], None)


def test_a_goal_is_met_from_either_side(run_all):
    line = {"what": "w", "against": "", "reached": 2.0, "goal": 2.5, "unit": "x", "script": "s"}
    assert run_all.verdict(line) == "NO"
    assert run_all.verdict({**line, "at_most": True}) == "yes"
    assert run_all.verdict({**line, "reached": float("nan")}) == "NO"
    assert run_all.verdict({**line, "goal": None}) == "-"
    assert run_all.goal_text({**line, "at_most": True}) == "<= 2.5 x"


def test_what_scripts_print_becomes_one_table_and_a_failure_does_not_end_it(
    run_all, monkeypatch, capsys, tmp_path
):
    line = {"what": "w", "against": "mmdet", "reached": 3.0, "goal": 2.5, "unit": "x"}
    good = json.dumps({"schema": 1, "machine": {"cores": 2}, "lines": [line]})
    commands = {
        "bad": "raise SystemExit('no memory')",
        "good": f"print('A library.\\n' + {good!r})",
    }
    silent = 'print(\'{"machine": {}, "results": []}\')'
    monkeypatch.setattr(
        run_all,
        "commands",
        lambda *_: {
            name: [run_all.sys.executable, "-c", code]
            for name, code in {**commands, "silent": silent}.items()
        },
    )
    monkeypatch.setattr("sys.argv", ["run_all.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        run_all.main()
    assert ended.value.code == 1
    written = (tmp_path / "benchmarks.md").read_text()
    assert "cpu: cores 2" in written
    assert "| w | mmdet | >= 2.5 x | 3 x | yes | good |" in written
    assert "- bad failed: no memory" in written
    assert "- silent has no lines for this table" in written
    assert written in capsys.readouterr().out
    report = json.loads((tmp_path / "benchmarks.json").read_text())
    assert set(report["scripts"]) == {"good", "silent"}
    assert report["failed"] == {"bad": ["no memory"]}


def test_lines_of_the_command_itself(run_all):
    result = {"training": False, "median_ms": 6.5, "peak_share": 0.4, "against": None}
    graph = "R50-800, bf16, CUDA graph"
    ms, share = run_all.lines_of(graph, {"result": result})
    assert (ms["reached"], ms["goal"], ms["at_most"]) == (6.5, 8.0, True)
    assert share["reached"] == 0.4
    step = {"training": True, "images_per_second": 90.0, "peak_share": None}
    step["against"] = {"name": "mmdet", "speedup": 3.0}
    rate, ratio = run_all.lines_of("training R50-800, 2 images", {"result": step})
    assert (rate["reached"], rate["unit"]) == (90.0, "images/s")
    assert (ratio["reached"], ratio["against"]) == (3.0, "mmdet in float32")


# --- a day with a GPU ---


def test_a_part_that_takes_too_long_is_stopped_and_named(run_all):
    report = {"failed": {}, "scripts": {}, "lines": [], "machine": {}}
    saves = "import signal, sys, time\n"
    saves += "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(0)))\n"
    saves += "print('begun', flush=True)\ntime.sleep(60)"
    started = time.monotonic()
    out = run_all.add(report, "slow", [sys.executable, "-c", saves], 1.0)
    assert time.monotonic() - started < 20
    assert "saved" in out
    assert report["failed"]["slow"][-1] == "stopped after 1 seconds"


def test_parts_for_a_gpu_fit_into_their_minutes(gpu_day, tmp_path):
    whole = gpu_day.parts(False, tmp_path)
    first = list(whole.values())[:-1]
    assert sum(part.seconds for part in first) <= 12 * 60
    assert list(whole)[-1] == "table1b 2/.25"
    assert all("cpu" not in part.command for part in whole.values())
    assert any("--compile" in part.command for part in first)
    assert "16" in whole["training R50-800, 16 images"].command


def test_the_dry_run_has_the_same_parts_in_small(gpu_day, tmp_path):
    whole, dry = gpu_day.parts(False, tmp_path), gpu_day.parts(True, tmp_path)
    assert list(dry) == list(whole)
    for part in dry.values():
        assert not {"cuda", "800x1333", "--cuda-graph", "--amp", "bf16"} & set(part.command)


def test_what_parts_say_is_written_and_time_that_is_over_too(gpu_day, monkeypatch, tmp_path):
    code = "print('===== 3 passed, 2 skipped in 1s =====')"
    wrong = "raise SystemExit('1 failed, 2 passed')"
    made = {
        "tests": gpu_day.Part([sys.executable, "-c", code], 30),
        "broken": gpu_day.Part([sys.executable, "-c", wrong], 30),
    }
    monkeypatch.setattr(gpu_day, "parts", lambda *_: made)
    monkeypatch.setattr("sys.argv", ["gpu_day.py", "--dry-run", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu_day.main()
    assert ended.value.code == 1
    written = (tmp_path / "benchmarks.md").read_text()
    assert "- tests: 3 passed, 2 skipped in 1s (" in written
    assert "- broken failed" in written
    monkeypatch.setattr("sys.argv", [*sys.argv, "--minutes", "0"])
    with pytest.raises(SystemExit):
        gpu_day.main()
    assert "not run: the 0 minutes were over" in (tmp_path / "benchmarks.md").read_text()
