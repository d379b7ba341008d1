import json
import os
import re
import subprocess
import sys

import pytest
import torch
import warm
from typer.main import get_command
from typer.testing import CliRunner

from fldet.cli.main import RootGroup, app, expand_lists, set_torch_variables

HEAVY = ("torch", "numpy", "mmengine", "mmcv", "mmdet", "rich", "matplotlib", "cv2")
COMMANDS = [
    [],
    ["train"],
    ["init"],
    ["test"],
    ["compare"],
    ["benchmark"],
    ["benchmark", "predict"],
    ["benchmark", "train"],
    ["benchmark", "table"],
    ["predict"],
    ["export"],
    ["doctor"],
    ["plugins"],
    ["analyze"],
    ["analyze", "dataset"],
    ["analyze", "anchors"],
    ["config"],
    ["config", "show"],
    ["config", "diff"],
    ["config", "why"],
    ["data"],
    ["data", "inspect"],
    ["data", "convert"],
    ["paper"],
    ["paper", "run"],
    ["paper", "report"],
]


def run_as_process(*arguments, **options):
    command = [sys.executable, "-m", "fldet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_a_shell_completes_commands_and_options():
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        "sys.argv = ['fldet']\n"
        "from fldet.cli.main import main\n"
        "main()\n"
    )
    for words, expected in (("fldet tr", "train"), ("fldet train c.py --wo", "--work-dir")):
        number = str(len(words.split()) - 1)
        asked = {"_FLDET_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | asked,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.split("\n")[0] == expected, done.stderr
        assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_examples_and_imports_nothing_heavy(words):
    code = (
        "import sys, atexit\n"
        f"sys.argv = ['fldet', *{words!r}, '--help']\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        "from fldet.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    group = words in ([], ["analyze"], ["benchmark"], ["config"], ["data"], ["paper"])
    assert group or "Examples:\n    fldet " in done.stdout
    assert not re.search(r"[\w,:]\.\.\.$", done.stdout, re.M), "a summary is cut off"
    assert "list[" not in done.stdout


def test_summaries_are_what_the_commands_say():
    for name, command in get_command(app).commands.items():
        assert RootGroup.summaries[name] == command.help.partition("\n\n")[0].replace("\n", " ")


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        (
            ["a", "--cfg-options", "x=1", "y=2"],
            ["a", "--cfg-options", "x=1", "--cfg-options", "y=2"],
        ),
        (["--cfg-options", "x=1", "--seed", "3"], ["--cfg-options", "x=1", "--seed", "3"]),
        (["--cfg-options", "x=1", "config.py"], ["--cfg-options", "x=1", "config.py"]),
        (["--cfg-options", "x=a=b"], ["--cfg-options", "x=a=b"]),
        (
            ["--cfg-options", "+x=1", "--cfg-options", "y=2"],
            ["--cfg-options", "+x=1", "--cfg-options", "y=2"],
        ),
        (["--out", "x=1"], ["--out", "x=1"]),  # a value of another option
        (
            ["--depths", "50", "101", "--scales", "400", "500", "--json"],
            ["--depths", "50", "--depths", "101", "--scales", "400", "--scales", "500", "--json"],
        ),
        (["--scales", "400", "c.py"], ["--scales", "400", "c.py"]),
        (
            ["compare", "DATA", "--models", "ssd", "yolov2", "c.py"],
            ["compare", "DATA", "--models", "ssd", "--models", "yolov2", "c.py"],
        ),
        (["--depths", "fifty", "50"], ["--depths", "fifty", "50"]),  # for Click to complain
        (["x", "--cfg-options"], ["x", "--cfg-options"]),
    ],
)
def test_options_that_take_several_values(given, expanded):
    assert expand_lists(given) == expanded


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "9"}, {"GOMP_SPINCOUNT": "9"}),
    ],
)
def test_what_a_user_has_set_for_torch_stays(given, expected):
    variables = {**given}
    set_torch_variables(variables)
    assert variables == expected


def test_a_training_takes_its_memory_in_large_pages(monkeypatch):
    for given, expected in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
        if given:
            monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", given)
        CliRunner().invoke(app, ["train", "no_such_config.py"])
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == expected


def test_version():
    import fldet as package

    assert run_as_process("--version").stdout.strip() == package.__version__


@pytest.mark.e2e
def test_config_show_prints_python_on_stdout_or_json(fldet):
    shown = fldet("config", "show", "retinanet/r101_fpn_1.5x.py")
    assert shown.returncode == 0
    namespace = {}
    exec(shown.stdout, namespace)
    assert namespace["model"]["backbone"]["depth"] == 101
    as_json = fldet("config", "show", "retinanet/r101_fpn_1.5x.py", "--json")
    result = json.loads(as_json.stdout)
    assert (result["schema"], result["command"]) == (1, "config show")
    assert result["result"]["train_cfg"]["max_iters"] == 135_000


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "no_such_config.py"], 2, ["no_such_config"]),
        (
            ["train", "retinanet/r50_fpn_1x.py", "--cfg-options", "model.backbone.dept=34"],
            2,
            ["dept", "depth"],
        ),
        (["train", "retinanet/r50_fpn_1x.py"], 1, ["annotation file not found", "data_root="]),
        (["train", "retinanet/r50_fpn_1x.py", "--device", "tpu"], 2, ["unknown device 'tpu'"]),
        (
            ["test", "retinanet/r50_fpn_1x.py", "no_such.pth"],
            1,
            ["checkpoint not found: no_such.pth"],
        ),
        (["train", "retinanet/r50_fpn_1x.py", "--gpu", "2"], 2, ["--gpus"]),
        (["benchmark", "retinanet/r50_fpn_1x.py", "--shape", "big"], 2, ["HEIGHTxWIDTH"]),
        (
            ["train", "retinanet/r50_fpn_1x.py", "--launcher", "pytorch"],
            2,
            ["--launcher pytorch needs the variable RANK", "--gpus N"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_wrong_usage_is_three_lines_without_a_traceback(fldet, arguments, code, words, tmp_path):
    done = fldet(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    error = done.stderr[done.stderr.find("Error:") :].strip().splitlines()
    assert len(error) <= 3


@pytest.mark.e2e
def test_config_diff(fldet, tmp_path):
    configs = ["retinanet/r50_fpn_1x.py", "retinanet/r101_fpn_1x.py"]
    done = fldet("config", "diff", *configs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "- A: retinanet/r50_fpn_1x.py",
        "+ B: retinanet/r101_fpn_1x.py",
        "  model.backbone.depth: 50 -> 101",
        "  model.backbone.init_cfg.checkpoint: "
        "'torchvision://resnet50' -> 'torchvision://resnet101'",
    ]
    same = fldet("config", "diff", configs[0], configs[0], cwd=tmp_path)
    assert (same.returncode, same.stdout) == (0, "no difference\n")
    first = json.loads(fldet("config", "diff", *configs, "--json").stdout)["result"][0]
    assert first == {"key": "model.backbone.depth", "a": 50, "b": 101, "in_a": True, "in_b": True}


@pytest.mark.e2e
def test_config_diff_marks_what_only_one_has(fldet, tmp_path):
    (tmp_path / "a.py").write_text("x = dict(a=1)")
    (tmp_path / "b.py").write_text("x = dict(b=None)")
    done = fldet("config", "diff", "a.py", "b.py", cwd=tmp_path)
    assert done.stdout.splitlines()[2:] == ["- x.a: 1 (only in A)", "+ x.b: None (only in B)"]


@pytest.mark.e2e
def test_config_why(fldet, tmp_path):
    (tmp_path / "base.py").write_text("m = dict(\n  a=1)\np = [1]\nq = dict(p=p)")
    (tmp_path / "c.py").write_text("_base_ = 'base.py'\nm = dict(a=2)")
    options = ["--cfg-options", "m.a=3"]
    done = fldet("config", "why", "c.py", "m.a", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "m.a = 3",
        "  --cfg-options: set to 3",
        "      m.a=3",
        "  c.py:2: set to 2, overridden",
        "      m = dict(a=2)",
        "  base.py:1: set to 1, overridden",
        "      m = dict(",
    ]
    through = fldet("config", "why", "c.py", "q.p", cwd=tmp_path).stdout.splitlines()
    assert through[1:] == [
        "  base.py:3: set to [1]",
        "      p = [1]",
        "      through base.py:4: q = dict(p=p)",
    ]
    result = json.loads(fldet("config", "why", "c.py", "m", "--json", cwd=tmp_path).stdout)[
        "result"
    ]
    assert (result["value"], result["steps"][0]["place"]["line"]) == ({"a": 2}, 2)
    wrong = fldet("config", "why", "c.py", "m.b", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "m has no 'b'" in wrong.stderr


@pytest.mark.e2e
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_names_the_way_out(tmp_path):
    done = warm.run("train", "retinanet/r50_fpn_1x.py", "--device", "cuda", cwd=tmp_path)
    assert done.returncode == 1
    assert "sees no CUDA device" in done.stderr
    assert "--device cpu" in done.stderr
    assert "Traceback" not in done.stderr
