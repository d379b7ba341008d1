"""A run that was stopped and resumed against one that was not."""

import importlib.util
import json
import logging
import os
import signal
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

import fldet
from fldet.config import load_config
from fldet.engine.checkpoint import read_checkpoint
from fldet.engine.resume import prepare_work_dir, trim_scalars
from fldet.engine.train import train
from fldet.errors import CheckpointError, StoppedError, UsageError

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
    assert stopped.value.hint.endswith(f"--work-dir {tmp_path / 'killed'} --resume")
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
    other = load_config(whole[0], [*OPTIONS, "train_dataloader.batch_size=3"])
    with pytest.raises(StoppedError):
        train(other, work_dir=tmp_path, resume=True, seed=5, device="cpu")
    assert "the run began with seed 0 and keeps it" in caplog.text
    assert "resumed after iteration 5 of 8" in caplog.text
    assert "from seed 0 and the iteration" in caplog.text
    assert "images per process: 2 before, 3 now: the run goes on, but not exactly" in caplog.text


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
    (tmp_path / "killed" / ".iter_7.pth.abc").touch()
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


def test_lines_that_will_be_written_again_are_removed(tmp_path):
    path = tmp_path / "scalars.json"
    train_lines = [{"lr": 1, "step": step} for step in (1, 2, 3)]
    lines = [*train_lines[:2], {"coco/AP": 0.5, "step": 2}, train_lines[2]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"lr": 1, "st')
    for validated, kept in ((True, lines[:3]), (False, lines[:2])):
        trim_scalars(path, 2, validated=validated)
        assert [json.loads(line) for line in path.read_text().splitlines()] == kept


def test_a_run_that_ended_before_its_first_checkpoint_leaves_no_line(tmp_path):
    path = tmp_path / "20260101_000000" / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"lr": 1, "step": 1}\n')
    prepare_work_dir(tmp_path, None, resume=False)  # of another run, which is not gone on with
    assert path.read_text()
    prepare_work_dir(tmp_path, None, resume=True)
    assert path.read_text() == ""


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
