"""The three commands that draw figures of the paper."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import warm
from typer.testing import CliRunner

from fldet.checkpoints.model import build_model
from fldet.cli.main import app
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config

HEAVY = ("torch", "numpy", "mmengine", "mmdet", "rich", "matplotlib")


@pytest.fixture
def analyze(capfd):
    """Runs ``fldet analyze``; returns exit code, stdout and stderr of the process."""

    def run(*words):
        capfd.readouterr()
        result = CliRunner().invoke(app, ["analyze", *map(str, words)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, capfd.readouterr().out, result.stderr

    return run


@pytest.fixture
def sample_file(tmp_path):
    random = np.random.default_rng(0)
    procedure = dict(
        config="c",
        checkpoint="w.pth",
        split="val",
        window="anchor",
        images=3,
        seed=0,
        positives_seen=9,
        negatives_seen=900,
    )
    np.savez(
        tmp_path / "mine.npz",
        positives=random.normal(size=9).astype(np.float32),
        negatives=random.normal(size=900).astype(np.float32),
        procedure=np.array(json.dumps(procedure)),
    )
    return tmp_path / "mine.npz"


def test_loss_cdf_redraws_a_sample(analyze, sample_file, tmp_path):
    options = ("--gammas", "0", "--gammas", "3", "--out-dir", tmp_path / "out")
    code, out, _ = analyze("loss-cdf", "--from", sample_file, *options, "--json")
    assert code == 0
    content = json.loads(out)
    assert content["command"] == "analyze loss-cdf"
    assert [row["gamma"] for row in content["result"]["shares"]] == [0, 3]
    assert content["result"]["procedure"]["window"] == "anchor"
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert drawn == ["mine.json", "mine.png", "mine.svg"]
    _, text, _ = analyze("loss-cdf", "--from", sample_file, *options)
    assert "highest-scoring class of each" in text
    assert text.rstrip().endswith("mine.svg")


@pytest.mark.e2e
def test_loss_cdf_collects_once_and_keeps_what_it_collected(tiny_config, tmp_path):
    model = build_model(prepare_config(load_config(tiny_config), phases=("val",)))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    words = ["analyze", "loss-cdf", tiny_config, tmp_path / "w.pth", "--max-images", 2]
    words += ["--device", "cpu", "--out-dir", tmp_path / "out", "--json"]
    # In a process of its own: MMEngine's logger holds on to the stderr of its first use.
    done = warm.run(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["procedure"]["images"] == 2
    assert "images 2/2" in done.stderr
    endings = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert endings == [f"loss_cdf_tiny_val.{ending}" for ending in ("json", "npz", "png", "svg")]


def test_loss_cdf_does_not_replace_a_sample(analyze, tiny_config, tmp_path):
    (tmp_path / "loss_cdf_tiny_val.npz").touch()
    code, out, err = analyze("loss-cdf", tiny_config, "no.pth", "--out-dir", tmp_path)
    assert (code, out) == (2, "")
    assert "exists already" in err
    assert "--from" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["loss-cdf"], 2, "no CONFIG"),
        (["loss-cdf", "retinanet/r50_fpn_1x.py"], 2, "no CHECKPOINT"),
        (["loss-cdf", "--from", "none.npz"], 1, "file not found: none.npz"),
        (["loss-cdf", "a.py", "--from", "none.npz"], 2, "both CONFIG a.py and --from none.npz"),
        (["speed-accuracy", "--point", "a.json,b.json"], 2, "NAME=TEST.json,BENCHMARK.json"),
        (["speed-accuracy", "--point", "a=b.json"], 2, "NAME=TEST.json,BENCHMARK.json"),
        (
            ["speed-accuracy", "--point", "a=no.json,no.json"],
            1,
            "output of fldet test --json not found: no.json",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_wrong_usage(analyze, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = analyze(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_loss_curves_draws_three_figures(analyze, tmp_path):
    code, out, _ = analyze("loss-curves", "--out-dir", tmp_path, "--json")
    assert code == 0
    result = json.loads(out)["result"]
    assert result["loss_at_p_t_by_gamma"]["0.0"]["0.5"] == pytest.approx(0.6931, abs=1e-4)
    assert len(result["pictures"]) == len(list(tmp_path.iterdir())) == 6


def test_speed_accuracy_with_and_without_a_measured_point(analyze, tmp_path):
    test = {"command": "test", "result": {"figures": {"summary": {"AP": 0.25}}}}
    speed = {"median_ms": 9.0, "device": "cuda:0 (X)", "precision": "float16", "threads": 1}
    (tmp_path / "t.json").write_text(json.dumps(test))
    (tmp_path / "s.json").write_text(json.dumps({"command": "benchmark", "result": speed}))
    out_dir = ("--out-dir", tmp_path / "out")
    _, text, _ = analyze("speed-accuracy", *out_dir)
    assert "not plotted: YOLOv2, AP 21.6" in text
    point = f"mine={tmp_path / 't.json'},{tmp_path / 's.json'}"
    code, out, _ = analyze("speed-accuracy", "--point", point, *out_dir, "--json")
    assert code == 0
    last = json.loads(out)["result"]["figure"]["groups"][-1]
    assert last["hardware"] == "cuda:0 (X), float16"
    assert (last["points"][0]["name"], last["points"][0]["ap"]) == ("mine", 25)


@pytest.mark.parametrize("name", ["loss-cdf", "loss-curves", "speed-accuracy"])
def test_help_has_examples_and_imports_nothing_heavy(name):
    code = (
        "import sys, atexit\n"
        f"sys.argv = ['fldet', 'analyze', {name!r}, '--help']\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        "from fldet.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert f"Examples:\n    fldet analyze {name}" in done.stdout
