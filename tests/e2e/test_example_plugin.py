"""The example of docs/plug-ins.md: what it computes, that the page shows it, that it installs."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from fldet.checkpoints.files import read_checkpoint
from fldet.models.losses.sigmoid_loss import FocalLoss
from fldet.models.task_modules.miners import Examples
from fldet.plugins import SCOPES, find, load
from fldet.registry import MODELS, TASK_UTILS

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "tests" / "example_plugin"
PAGE = ROOT / "docs" / "plug-ins.md"


@pytest.fixture
def build(example_plugin):
    """Builds an object of the example plug-in."""
    load(find(SCOPES, "fldet_example"))

    def of(registry, name, **options):
        return registry.parent.build(dict(type=f"fldet_example.{name}", **options))

    return of


# --- the loss ---


@pytest.mark.parametrize("labels", [[0, 1, 2], [2, 2, 2], [0, 0, 0], []], ids=str)
def test_without_epsilon_the_loss_is_the_focal_loss(build, labels):
    logits = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0)) * 5
    options = {"gamma": 1.5, "alpha": 0.3}
    mine = build(MODELS, "PolyFocalLoss", epsilon=0.0, **options)
    labels = torch.tensor(labels, dtype=torch.long)
    torch.testing.assert_close(
        mine(logits, labels, avg_factor=2.0), FocalLoss(**options)(logits, labels, avg_factor=2.0)
    )


def test_the_loss_is_its_series(build):
    loss = build(MODELS, "PolyFocalLoss", gamma=2.0, epsilon=0.7, alpha=None)
    logits = torch.tensor([[1.2]], dtype=torch.float64)
    q = 1 - torch.sigmoid(logits)  # 1 - p_t of the object
    series = q**2 * (1.7 * q + sum(q**j / j for j in range(2, 200)))
    torch.testing.assert_close(loss.per_anchor(logits, torch.tensor([0])), series.squeeze(0))


def test_the_loss_is_not_negative_and_finite(build):
    loss = build(MODELS, "PolyFocalLoss", gamma=0.5, epsilon=-1.0, alpha=None)
    logits = torch.linspace(-1e4, 1e4, 2001).unsqueeze(1).requires_grad_()
    each = loss.per_anchor(logits, torch.zeros(2001, dtype=torch.long))
    each.sum().backward()
    assert (each >= 0).all()
    assert each.isfinite().all()
    assert logits.grad.isfinite().all()


def test_the_loss_refuses_a_negative_coefficient(build):
    with pytest.raises(ValueError, match=r"epsilon must be >= -1, got -1\.5"):
        build(MODELS, "PolyFocalLoss", epsilon=-1.5)


# --- the miner ---


def examples(losses, positive):
    count = len(losses)
    return Examples(
        cls_losses=torch.tensor(losses),
        box_losses=torch.zeros(count),
        is_positive=torch.tensor(positive, dtype=torch.bool),
        classes=torch.zeros(count, dtype=torch.long),
        anchors=torch.zeros(count, 4),
        decoded=torch.zeros(count, 4),
    )


@pytest.mark.parametrize(
    ("share", "losses", "positive", "kept", "why"),
    [
        (0.5, [0.1, 0.9, 0.3, 0.5, 0.2], [1, 0, 0, 0, 0], [0, 1, 3], "half of four negatives"),
        (0.01, [0.1, 0.9, 0.3], [0, 0, 0], [1], "rounded up; no positive"),
        (1.0, [0.1, 0.9, 0.3], [0, 1, 0], [0, 1, 2], "everything"),
        (0.5, [0.1, 0.9], [1, 1], [0, 1], "no negative"),
        (0.5, [0.4], [0], [0], "one anchor"),
        (0.5, [], [], [], "all ignored"),
    ],
)
def test_the_miner_keeps_positives_and_the_hardest(build, share, losses, positive, kept, why):
    miner = build(TASK_UTILS, "HardestShare", share=share)
    (chosen,) = miner.mine([examples(losses, positive)])
    assert chosen.dtype == torch.int64
    assert sorted(chosen.tolist()) == kept


@pytest.mark.parametrize("share", [0, 1.1, -1])
def test_the_miner_refuses_another_share(build, share):
    with pytest.raises(ValueError, match="share must be in"):
        build(TASK_UTILS, "HardestShare", share=share)


# --- the page, and the whole way ---


def test_the_page_shows_every_file_as_it_is():
    shown = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```$", PAGE.read_text(), re.M | re.S))
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")]
    assert shown == {str(path.relative_to(EXAMPLE)): path.read_text() for path in files}


@pytest.mark.slow
def test_installed_by_pip_into_a_fresh_environment(tmp_path, installed_wheel, tiny_config):
    """Wheels of fldet and of the example in a new venv, which sees the packages of this one.

    Only these two are installed there, and without the network; torch and the like are those of
    this environment, through a .pth file.
    """
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    paths = sysconfig.get_paths(vars={"base": str(venv), "platbase": str(venv)})
    outside = sysconfig.get_paths()
    lines = f"{outside['purelib']}\n{outside['platlib']}\n"
    Path(paths["purelib"], "outside.pth").write_text(lines)
    source = tmp_path / "source"
    for path in EXAMPLE.rglob("*"):
        if path.suffix in (".py", ".toml"):
            target = source / path.relative_to(EXAMPLE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--ignore-installed")
    wheel = next(installed_wheel.parent.glob("*.whl"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", *options)
    subprocess.run([*pip, wheel, source], check=True, env=environment, cwd=tmp_path, timeout=300)

    def fldet(*arguments, code=0):
        done = subprocess.run(
            [venv / "bin" / "fldet", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    listed = json.loads(fldet("plugins", "--package", "fldet-example-plugin", "--json"))["result"]
    assert [one["problem"] for one in listed["plugins"]] == ["", ""]
    assert {one["name"] for one in listed["names"]} == {
        "analyze box-sizes",
        "fldet_example.PolyFocalLoss",
        "fldet_example.HardestShare",
    }
    truth = Path(re.search(r"data_root = '(.+)'", tiny_config.read_text())[1])
    annotations = truth / "annotations" / "instances_train2017.json"
    assert "median" in fldet("analyze", "box-sizes", annotations)
    ours = (EXAMPLE / "shapes_poly.py").read_text()
    mine = tmp_path / "mine.py"
    mine.write_text(ours.replace("fldet::shapes/retinanet_r18_shapes.py", "tiny.py"))
    overrides = ("train_cfg.max_iters=3", "train_cfg.val_interval=3")
    fldet("train", "mine.py", "--device", "cpu", "--cfg-options", *overrides)
    stored = read_checkpoint(tmp_path / "work_dirs" / "mine" / "iter_3.pth")["meta"]["cfg"]
    assert "fldet_example.PolyFocalLoss" in stored
    assert "fldet_example.HardestShare" in stored
    (scalars,) = (tmp_path / "work_dirs" / "mine").glob("*/vis_data/scalars.json")
    losses = [json.loads(line).get("loss_cls") for line in scalars.read_text().splitlines()]
    assert all(loss > 0 for loss in losses if loss is not None)
    assert any(losses)
