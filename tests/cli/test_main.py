import json
import subprocess
import sys

import pytest
import torch

from fldet.cli.main import expand_cfg_options

HEAVY = ("torch", "numpy", "mmengine", "mmcv", "mmdet", "rich", "matplotlib", "cv2")
COMMANDS = [
    [],
    ["train"],
    ["test"],
    ["benchmark"],
    ["doctor"],
    ["analyze"],
    ["analyze", "dataset"],
    ["analyze", "anchors"],
    ["config"],
    ["config", "show"],
]


def fldet(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fldet", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


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
    group = words in ([], ["analyze"], ["config"])
    assert group or "Examples:\n    fldet " in done.stdout


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
    ],
)
def test_cfg_options_take_several_values(given, expanded):
    assert expand_cfg_options(given) == expanded


def test_version():
    import fldet as package

    assert fldet("--version").stdout.strip() == package.__version__


@pytest.mark.e2e
def test_config_show_prints_python_on_stdout_or_json():
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
            1,
            ["annotation file not found"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_wrong_usage_is_three_lines_without_a_traceback(arguments, code, words, tmp_path):
    done = fldet(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    error = done.stderr[done.stderr.find("Error:") :].strip().splitlines()
    assert len(error) <= 3


@pytest.mark.e2e
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_names_the_way_out(tmp_path):
    done = fldet("train", "retinanet/r50_fpn_1x.py", "--device", "cuda", cwd=tmp_path)
    assert done.returncode == 1
    assert "sees no CUDA device" in done.stderr
    assert "--device cpu" in done.stderr
    assert "Traceback" not in done.stderr
