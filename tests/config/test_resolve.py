"""A config is completed once, by fldet.config.resolve, and only read afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict

from fldet.config.load import format_config, load_config
from fldet.config.resolve import TrainOptions, resolve_training, settle_training
from fldet.engine import test as engine_test
from fldet.engine import train as engine

OPTIONS = ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "ema=True", "accumulate=2"]
CHANGERS = ("__setitem__", "__delitem__", "update", "pop", "popitem", "setdefault", "clear")


@pytest.fixture
def frozen(monkeypatch):
    """Freezes configs: ``frozen(cfg)`` forbids to change it, in whatever place."""
    kept = {}

    def guard(name):
        change = getattr(ConfigDict, name)

        def changed(self, *args, **kwargs):
            assert id(self) not in kept, f"the config was changed by {name}{args[:1]}"
            return change(self, *args, **kwargs)

        return changed

    for name in CHANGERS:
        monkeypatch.setattr(ConfigDict, name, guard(name))
    monkeypatch.setattr(ConfigDict, "__setattr__", guard("__setattr__"))

    def freeze(node):
        if isinstance(node, Config):
            node = node._cfg_dict
        if isinstance(node, dict):
            kept[id(node)] = node
            node = node.values()
        if not isinstance(node, str):
            for value in node:
                if isinstance(value, (dict, list, tuple)):
                    freeze(value)

    return freeze


def test_the_guard_notices_a_change(frozen, tiny_config):
    cfg = load_config(tiny_config)
    frozen(cfg)
    for change in (
        lambda: cfg.model.update(a=1),
        lambda: cfg.model.backbone.pop("depth"),
        lambda: setattr(cfg, "seed", 1),
        lambda: cfg.train_dataloader.dataset.pipeline[0].setdefault("a", 1),
    ):
        with pytest.raises(AssertionError, match="the config was changed"):
            change()


def test_nothing_writes_to_the_config_of_a_training(frozen, tiny_config, tmp_path, monkeypatch):
    """And the one that is saved is the one that was resolved."""
    settled = []

    def settle(*args, **kwargs):
        cfg = settle_training(*args, **kwargs)
        frozen(cfg)
        settled.append(format_config(cfg))
        return cfg

    monkeypatch.setattr(engine, "settle_training", settle)
    engine.train(load_config(tiny_config, OPTIONS), work_dir=tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "tiny.py").read_text() == settled[0]


def test_nothing_writes_to_the_config_of_a_test(frozen, tiny_run, tmp_path, monkeypatch):
    resolve = engine_test.resolve_test

    def resolve_and_freeze(*args, **kwargs):
        cfg = resolve(*args, **kwargs)
        frozen(cfg)
        return cfg

    monkeypatch.setattr(engine_test, "resolve_test", resolve_and_freeze)
    engine_test.test(*tiny_run, work_dir=tmp_path, show_dir=tmp_path / "p", device="cpu")


def test_the_resolved_config_is_shown(fldet, tiny_config):
    shown = fldet("config", "show", tiny_config, "--resolved")
    assert shown.returncode == 0, shown.stderr
    namespace = {}
    exec(shown.stdout, namespace)
    del namespace["__builtins__"]
    cfg, device = load_config(tiny_config), torch.device("cpu")
    assert namespace == resolve_training(cfg, device, TrainOptions()).to_dict()


def test_the_config_that_was_loaded_stays_as_it_is(tiny_config, tmp_path):
    cfg = load_config(tiny_config, OPTIONS)
    before, device = format_config(cfg), torch.device("cpu")
    resolved = resolve_training(cfg, device, TrainOptions(tmp_path, seed=3, auto_scale_lr=True))
    assert format_config(cfg) == before
    text = format_config(resolved)
    settled = settle_training(resolved, seed=5, images=2, processes=2, device=device)
    assert format_config(resolved) == text
    assert (settled.randomness.seed, settled.resume) == (5, True)
    assert settled.train_dataloader.batch_size == 2
    assert resolved.randomness.seed == 3


# Counts the modules of fldet whose functions run, imports left out.
COUNT = """
import os, sys
import mmengine.optim
from fldet.cli.main import app

entered = set()

def watch(frame, event, _):
    name, code = frame.f_globals.get('__name__', ''), frame.f_code
    if event != 'call' or not name.startswith('fldet.') or name in entered or not code.co_flags & 1:
        return
    while frame is not None:
        if frame.f_code.co_name == '<module>' and frame.f_globals['__name__'] != '__main__':
            return
        frame = frame.f_back
    entered.add(name)

def step(*_, **__):
    sys.setprofile(None)
    print(*sorted(entered), file=sys.__stdout__, flush=True)
    os._exit(0)

mmengine.optim.OptimWrapper.step = step
sys.argv[0] = 'fldet'
sys.setprofile(watch)
app()
"""
PARTS = ("fldet.losses", "fldet.models", "fldet.data", "fldet.evaluation", "fldet.engine.hooks")


def test_a_training_enters_few_modules_before_its_first_step(tiny_config, tmp_path):
    """Parts that the config names, and what they call, are not counted: they are what it is for."""
    command = ["train", str(tiny_config), "--device", "cpu", "--work-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(engine.__file__).parents[2]), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    entered = [name for name in done.stdout.split() if not name.startswith(PARTS)]
    assert "fldet.config.resolve" in entered
    assert len(entered) <= 40, " ".join(entered)
