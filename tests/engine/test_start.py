"""A run that was stopped and resumed against one that was not."""

import importlib.util
import json
import logging
import os
import shlex
import shutil
import signal
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

import fldet
from fldet.checkpoints.files import read_checkpoint
from fldet.config.load import load_config
from fldet.engine.train import train
from fldet.errors import CheckpointError, ConfigError, StoppedError, UsageError

ROOT = Path(fldet.__file__).parent.parent
OPTIONS = [
    "train_cfg.max_iters=8",
    "train_cfg.val_interval=3",
    "default_hooks.checkpoint.interval=2",
    "default_hooks.logger.interval=1",
]


def load_tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "kill_and_resume.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


class SignalHook(Hook):
    """Sends signals to this process in an iteration, or in the validation after it."""

    def __init__(self, iteration, *numbers, validation=False):
        self.at = iteration, validation
        self.numbers = numbers

    def after_train_iter(self, runner, *args, **kwargs):
        self._send(runner.iter + 1, False)

    def after_val_iter(self, runner, *args, **kwargs):
        self._send(runner.iter, True)

    def _send(self, iteration, validation):
        if (iteration, validation) == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_tiny_config):
    """The config, and the folder ``reference`` of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    path = write_tiny_config(folder)
    train(load_config(path, OPTIONS), work_dir=folder / "reference", device="cpu")
    return path, folder


@pytest.mark.parametrize(
    ("hook", "workers", "saved", "exit_code"),
    [
        (SignalHook(1, signal.SIGTERM), 0, 1, 143),
        (SignalHook(5, signal.SIGINT), 2, 5, 130),
        (SignalHook(6, signal.SIGTERM), 1, 6, 143),  # its validation is still to be done
        (SignalHook(3, signal.SIGINT, validation=True), 0, 3, 130),
        (SignalHook(8, signal.SIGTERM), 0, 8, 143),  # after the last iteration
    ],
    ids=["first", "workers", "before-validation", "in-validation", "last"],
)
def test_a_signal_saves_and_resume_is_exact(
    whole, tmp_path, with_hook, hook, workers, saved, exit_code
):
    path, folder = whole
    (tmp_path / "reference").symlink_to(folder / "reference")
    cfg = load_config(path, [*OPTIONS, f"train_dataloader.num_workers={workers}"])
    with_hook(hook)
    with pytest.raises(StoppedError, match=f"saved iter_{saved}.pth") as stopped:
        train(cfg, work_dir=tmp_path / "killed", device="cpu")
    assert stopped.value.exit_code == exit_code
    config, work_dir = tmp_path / "killed" / path.name, tmp_path / "killed"
    again = f"fldet train {config} --work-dir {work_dir} --device cpu --resume"
    assert stopped.value.hint == f"go on with: {again}"
    with_hook()
    result = train(cfg, work_dir=tmp_path / "killed", resume=True, device="cpu")
    assert result.iterations == 8
    assert load_tool().differences(tmp_path, 8) == []


def test_resume_goes_on_with_the_run_and_not_with_its_pretrained_weights(
    whole, tmp_path, with_hook
):
    path, folder = whole
    (tmp_path / "reference").symlink_to(folder / "reference")
    pretrained = tmp_path / "pretrained.pth"
    torch.save(read_checkpoint(folder / "reference" / "iter_8.pth"), pretrained)
    cfg = load_config(path, OPTIONS)
    with_hook(SignalHook(5, signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(cfg, work_dir=tmp_path / "killed", device="cpu")
    with_hook()
    cfg.load_from = str(pretrained)  # of as many iterations as this run is to have
    train(cfg, work_dir=tmp_path / "killed", resume=True, device="cpu")
    assert load_tool().differences(tmp_path, 8) == []


def test_a_run_goes_on_without_the_file_that_it_started_from(whole, tmp_path, with_hook):
    pretrained = tmp_path / "pretrained.pth"
    weights = read_checkpoint(whole[1] / "reference" / "iter_8.pth")["state_dict"]
    torch.save({"state_dict": weights}, pretrained)
    cfg = load_config(whole[0], [*OPTIONS, f"load_from={pretrained}"])
    with_hook(SignalHook(1, signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    pretrained.unlink()
    with_hook(SignalHook(2, signal.SIGTERM))
    with pytest.raises(StoppedError, match="after iteration 2"):
        train(cfg, work_dir=tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(CheckpointError, match=r"pretrained\.pth"):  # a new one needs it
        train(cfg, work_dir=tmp_path / "new", device="cpu")


def test_resume_says_what_it_restores(whole, tmp_path, with_hook, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    caplog.set_level(logging.INFO, "fldet")
    cfg = load_config(whole[0], OPTIONS)
    with_hook(SignalHook(5, signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(cfg, work_dir=tmp_path, device="cpu")
    with_hook(SignalHook(6, signal.SIGTERM))
    other = load_config(whole[0], [*OPTIONS, "train_dataloader.batch_size=3", "amp=True"])
    with pytest.raises(StoppedError):
        train(other, work_dir=tmp_path, resume=True, seed=5, device="cpu")
    assert "the run began with seed 0 and keeps it" in caplog.text
    assert "resumed after iteration 5 of 8" in caplog.text
    assert "from seed 0 and the iteration" in caplog.text
    assert "images per process: 2 before, 3 now: the run goes on, but not exactly" in caplog.text
    step = "'in float32' before, 'network in bfloat16, losses in float32' now"
    assert f"training step: {step}: the run goes on, but not exactly" in caplog.text


def test_the_line_that_is_printed_at_a_stop_goes_on_with_the_same_run(
    whole, tmp_path, with_hook, fldet
):
    """Overrides, seed and batch size of the first command are in it, whatever the folder's name."""
    name = "it's 5 % (läuft)"
    options = [*OPTIONS, "train_cfg.max_iters=6", "train_cfg.val_interval=6", "ema=True"]
    arguments = ("--device", "cpu", "--seed", "7", "--batch-size", "3", "--cfg-options", *options)
    assert fldet("train", whole[0], "--work-dir", tmp_path / "reference", *arguments).stdout
    with_hook(SignalHook(3, signal.SIGTERM))
    stopped = fldet("train", whole[0], "--work-dir", tmp_path / name, *arguments)
    assert stopped.returncode == 143
    with_hook()
    line = stopped.stderr.partition("go on with: ")[2].splitlines()[0]
    done = fldet(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert "resumed after iteration 3 of 6" in done.stderr
    assert f"fldet test {shlex.quote(str(tmp_path / name))} " in done.stdout
    (tmp_path / name).rename(tmp_path / "killed")
    assert load_tool().differences(tmp_path, 6) == []


def resumed(whole, tmp_path, *changes):
    """Trains a copy of the reference on to iteration 9 with a changed config."""
    if not (tmp_path / "run").exists():
        shutil.copytree(whole[1] / "reference", tmp_path / "run")
    options = [*OPTIONS, "train_cfg.max_iters=9", *changes]
    return train(
        load_config(whole[0], options), work_dir=tmp_path / "run", resume=True, device="cpu"
    )


@pytest.mark.parametrize(
    ("changes", "said", "found"),
    [
        (
            ["optim_wrapper.optimizer.weight_decay=0.05"],
            "optimizer: weight_decay: the run began with 0.0001, it goes on with 0.05",
            {"weight_decay": 0.05},
        ),
        (
            ["optim_wrapper.optimizer.momentum=0.5", "optim_wrapper.optimizer.lr=0.02"],
            "optimizer: momentum: the run began with 0.9, it goes on with 0.5",
            {"momentum": 0.5},
        ),
        (
            ["param_scheduler.1.milestones=[5,7]", "param_scheduler.1.gamma=0.5"],
            "param_scheduler[1]: gamma: the run began with 0.1, it goes on with 0.5",
            {},
        ),
        (["accumulate=3"], "batches of a step: 1 before, 3 now: the run goes on, but not", {}),
    ],
    ids=["weight decay", "momentum", "schedule", "accumulate"],
)
def test_a_changed_setting_of_the_optimizer_is_named_and_used(
    whole, tmp_path, caplog, monkeypatch, changes, said, found
):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    resumed(whole, tmp_path, *changes)
    assert said in caplog.text
    group = read_checkpoint(tmp_path / "run" / "iter_9.pth")["optimizer"]["param_groups"][0]
    assert {name: group[name] for name in found} == found


def test_nothing_is_said_where_nothing_has_changed(whole, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    resumed(whole, tmp_path)
    assert "the run began with" not in caplog.text
    assert "before," not in caplog.text


ADAM = "optim_wrapper.optimizer={'_delete_': True, 'type': 'AdamW', 'lr': 0.001}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([ADAM], "the run has SGD, the config AdamW"),
        (
            ["+optim_wrapper.paramwise_cfg={'norm_decay_mult': 0.0}"],
            "its optimizer has 1 groups of weights, the config's",
        ),
        (["param_scheduler=None"], "its schedule has 2 parts, the config's 0"),
        (
            ["param_scheduler.1={'_delete_': True, 'type': 'CosineAnnealingLR', 'T_max': 9}"],
            r"param_scheduler\[1\] of the run is of another kind",
        ),
    ],
    ids=["optimizer", "groups", "no schedule", "schedule"],
)
@pytest.mark.parametrize("written", ["now", "before optimizers had a name in it"])
def test_an_optimizer_of_another_kind_is_an_error_before_anything_is_touched(
    whole, tmp_path, changes, said, written
):
    shutil.copytree(whole[1] / "reference", tmp_path / "run")
    if written != "now":
        for path in (tmp_path / "run").glob("iter_*.pth"):
            content = read_checkpoint(path)
            del content["meta"]["fldet"]["optimizer"]
            torch.save(content, path)
        said = said.replace("the run has SGD, the config AdamW", "its optimizer has dampening")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*")}
    with pytest.raises(ConfigError, match=said) as caught:
        resumed(whole, tmp_path, *changes)
    assert "load_from=" in caught.value.hint
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*")} == before


@pytest.mark.parametrize("seed", [2**70, 2**32, -1, True, 1.0, "7", None, [1]])
def test_a_checkpoint_whose_seed_is_none_is_passed_over(whole, tmp_path, seed):
    content = read_checkpoint(whole[1] / "reference" / "iter_8.pth")
    content["meta"]["seed"] = seed
    torch.save(content, tmp_path / "iter_8.pth")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        train(load_config(whole[0], OPTIONS), work_dir=tmp_path, resume=True, device="cpu")


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70, True, 1.5, "1"])
def test_a_seed_that_is_none_is_named(whole, tmp_path, seed):
    cfg = load_config(whole[0], OPTIONS)
    cfg.randomness = {"seed": seed}
    with pytest.raises(ConfigError, match="seed is"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_config_in_a_checkpoint_is_not_run(whole, tmp_path):
    shutil.copytree(whole[1] / "reference", tmp_path / "run")
    path = tmp_path / "run" / "iter_8.pth"
    content = read_checkpoint(path)
    content["meta"]["config"] = f"open({str(tmp_path / 'was_run')!r}, 'w')"
    torch.save(content, path)
    resumed(whole, tmp_path)
    assert not (tmp_path / "was_run").exists()


def test_the_result_names_the_checkpoint_that_was_written(whole, tmp_path):
    shutil.copytree(whole[1] / "reference", tmp_path / "run")
    (tmp_path / "run" / "iter_1000000.pth").write_text("x")
    again = train(
        load_config(whole[0], OPTIONS), work_dir=tmp_path / "run", resume=True, device="cpu"
    )
    assert (again.iterations, again.seconds) == (8, 0.0)  # it was finished
    result = resumed(whole, tmp_path)
    assert (result.iterations, result.last_checkpoint.name) == (9, "iter_9.pth")


def test_a_second_ctrl_c_stops_at_once(whole, tmp_path, with_hook):
    with_hook(SignalHook(3, signal.SIGINT, signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(load_config(whole[0], OPTIONS), work_dir=tmp_path, device="cpu")
    assert not (tmp_path / "iter_3.pth").exists()
    assert signal.getsignal(signal.SIGINT) is before


def damage(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "foreign":
        torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    else:
        loaded = read_checkpoint(path)
        del loaded["state_dict"]["bbox_head.retina_cls.weight"]
        torch.save(loaded, path)


@pytest.mark.parametrize("how", ["truncated", "foreign", "of another model"])
def test_an_unusable_newest_checkpoint_is_passed_over(
    whole, tmp_path, with_hook, caplog, monkeypatch, how
):
    monkeypatch.setattr(logging.getLogger("fldet"), "propagate", True)
    path, folder = whole
    (tmp_path / "reference").symlink_to(folder / "reference")
    cfg = load_config(path, OPTIONS)
    with_hook(SignalHook(7, signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(cfg, work_dir=tmp_path / "killed", device="cpu")
    with_hook()
    damage(tmp_path / "killed" / "iter_7.pth", how)
    (tmp_path / "killed" / ".iter_7.pth.0123abcd").touch()
    result = train(cfg, work_dir=tmp_path / "killed", resume=True, device="cpu")
    assert "passed over" in caplog.text
    assert result.iterations == 8
    (tmp_path / "killed" / "iter_7.pth").unlink()
    problems = load_tool().differences(tmp_path, 8)
    assert [p for p in problems if not p.startswith("files differ")] == []
    assert not list((tmp_path / "killed").glob(".iter*"))


def test_without_a_usable_checkpoint_nothing_is_overwritten(whole, tmp_path):
    torch.save({"a": 1}, tmp_path / "iter_2.pth")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        train(load_config(whole[0], OPTIONS), work_dir=tmp_path, resume=True, device="cpu")
    assert torch.load(tmp_path / "iter_2.pth") == {"a": 1}


def test_a_finished_run_without_its_last_validation_does_it(whole, tmp_path, with_hook):
    cfg = load_config(whole[0], OPTIONS)
    with_hook(SignalHook(8, signal.SIGTERM))
    with pytest.raises(StoppedError):
        train(cfg, work_dir=tmp_path, device="cpu")
    with_hook()
    first = train(cfg, work_dir=tmp_path, resume=True, device="cpu")
    again = train(cfg, work_dir=tmp_path, resume=True, device="cpu")
    assert first.best_ap is not None
    assert again.seconds == 0.0


def test_a_work_dir_in_use_is_refused(whole, tmp_path):
    content = {"pid": os.getppid(), "host": os.uname().nodename, "since": "today"}
    (tmp_path / "run.lock").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"in use by process {os.getppid()} on"):
        train(load_config(whole[0], OPTIONS), work_dir=tmp_path, device="cpu")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_training_starts_from_a_checkpoint_with_code_only_if_trusted(whole, tmp_path):
    target, path = tmp_path / "was_run", tmp_path / "evil.pth"
    weights = read_checkpoint(whole[1] / "reference" / "iter_8.pth")["state_dict"]
    torch.save({"state_dict": weights, "other": Payload(target)}, path)
    cfg = load_config(whole[0], [*OPTIONS, f"load_from={path}", "train_cfg.max_iters=1"])
    with pytest.raises(CheckpointError, match=r"it needs posix\.mkdir"):
        train(cfg, work_dir=tmp_path / "run", device="cpu")
    assert not target.exists()
    torch.save({"state_dict": weights, "other": Namespace(a=1)}, path)
    result = train(cfg, work_dir=tmp_path / "run", device="cpu", trust_checkpoint=True)
    assert result.iterations == 1
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"  # only for that run


@pytest.mark.slow
def test_killed_inside_saves_and_evaluations(tmp_path):
    import subprocess
    import sys

    tool = [sys.executable, str(ROOT / "tools" / "kill_and_resume.py")]
    done = subprocess.run(
        [*tool, "--kills", "4", "--iterations", "12", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": killed") == 4
    assert "equal: weights, optimizer, schedule, scores, log" in done.stdout
