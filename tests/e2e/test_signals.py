"""Signals, exit codes and several processes, with the command as a user types it."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import warm

import fldet

ROOT = Path(fldet.__file__).parent.parent
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Slow enough to be met by a signal, and told to log every iteration.
OPTIONS = [
    "train_cfg.max_iters=16",
    "train_cfg.val_interval=16",
    "default_hooks.checkpoint.interval=10",
    "default_hooks.logger.interval=1",
    "custom_hooks.0.interval=1",
]


def load_tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "kill_and_resume.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def start(config, work_dir, *arguments, options=()):
    command = ["train", config, "--device", "cpu", "--work-dir", work_dir, *arguments]
    return warm.Started((*command, "--cfg-options", *OPTIONS, *options), stderr=subprocess.PIPE)


def finish(process):
    """Returns exit code and everything on stderr that nobody has read yet."""
    _, text = process.communicate(timeout=120)
    return process.returncode, text


def wait_for(process, text):
    """Reads stderr up to a line with ``text``."""
    read = ""
    for line in process.stderr:
        read += line
        if text in line:
            return read
    raise AssertionError(f"no {text!r} in:\n{read}")


HELD = """
_base_ = '{base}'
custom_imports = dict(imports=['fldet', 'hold'], allow_failed_imports=False)
default_hooks = dict(hold=dict(type='HoldHook'))
"""
HOLD = """
import time
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class HoldHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        while runner.iter == 7 and Path(runner.work_dir, 'hold').exists():
            time.sleep(0.01)
"""
HOLD_VALIDATION = HOLD.replace("before_train_iter", "before_val_iter").replace("== 7", "== 4")
# Runs a command in a terminal of its own, which goes when this process goes.
PTY = """
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execv(sys.argv[1], sys.argv[1:])
print(pid, flush=True)
while True:
    os.read(terminal, 65536)
"""


def test_a_signal_to_the_starter_of_two_processes_and_resume_is_exact(
    tiny_config, tmp_path, monkeypatch
):
    """The eighth iteration does not end before the signal has arrived."""
    gpus = ["--gpus", "2"]
    (tmp_path / "hold.py").write_text(HOLD)
    config = tmp_path / "held.py"
    config.write_text(HELD.format(base=tiny_config.name))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    assert finish(start(config, tmp_path / "reference", *gpus))[0] == 0
    hold = tmp_path / "killed" / "hold"
    hold.parent.mkdir()
    hold.touch()
    process = start(config, tmp_path / "killed", *gpus)
    wait_for(process, "iter 7/16")
    process.send_signal(signal.SIGTERM)
    for _ in range(2):  # the starter says it first, then process 0
        wait_for(process, "SIGTERM: saving")
    hold.unlink()
    code, text = finish(process)
    assert code == 143, text
    assert text.count("--resume") == 1
    assert "stopped by SIGTERM after iteration" in text
    assert not (tmp_path / "killed" / "run.lock").exists()
    code, text = finish(start(config, tmp_path / "killed", *gpus, "--resume"))
    assert code == 0, text
    assert "resumed after iteration" in text
    assert load_tool().differences(tmp_path, 16) == []


def loaders_of(process):
    """Returns the ids of all processes below one, on Linux."""
    found, todo = [], [process.pid]
    while todo:
        pid = todo.pop()
        below = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.read_text().rpartition(")")[2].split()[1] == str(pid)
        ]
        found += below
        todo += below
    return found


def are_gone(pids, seconds=10):
    """Waits for processes to end; those that wait for their parent to take notice count."""
    for _ in range(10 * seconds):
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        if not alive:
            return True
        time.sleep(0.1)
    return False


LONG = ["train_cfg.max_iters=100000", "train_cfg.val_interval=100000"]
SAVED_AT_THE_STOP = [*LONG, "default_hooks.checkpoint.interval=100000"]
WORKERS = ["train_dataloader.num_workers=2", *LONG]
only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@only_on_linux
@pytest.mark.parametrize(
    ("number", "gpus", "options"),
    [
        (signal.SIGTERM, 1, WORKERS),
        (signal.SIGTERM, 1, [*WORKERS, "+train_dataloader.multiprocessing_context=spawn"]),
        (signal.SIGTERM, 2, ["train_dataloader.num_workers=1", *LONG]),
    ],
    ids=["TERM", "TERM spawned", "TERM to two"],
)
def test_a_signal_to_all_processes_of_a_job_saves(tiny_config, tmp_path, number, gpus, options):
    """As timeout, systemd, Slurm and a terminal send it: to each process that there is."""
    more = ["--gpus", str(gpus)] if gpus > 1 else []
    process = start(tiny_config, tmp_path / "run", *more, options=options)
    wait_for(process, "iter 3/")
    pids = loaders_of(process)
    assert len(pids) >= 2
    for pid in (process.pid, *pids):
        os.kill(pid, number)
    code, text = finish(process)
    assert code == 128 + number, text
    assert len(list((tmp_path / "run").glob("iter_*.pth"))) == 1
    assert f"stopped by {signal.Signals(number).name} after iteration" in text
    assert are_gone(pids)


@only_on_linux
def test_a_signal_to_the_loaders_of_a_validation_is_left_to_the_run(
    tiny_config, tmp_path, monkeypatch
):
    (tmp_path / "hold.py").write_text(HOLD_VALIDATION)
    config = tmp_path / "held.py"
    config.write_text(HELD.format(base=tiny_config.name))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    hold = tmp_path / "run" / "hold"
    hold.parent.mkdir()
    hold.touch()
    options = ["train_cfg.val_interval=4", "val_dataloader.num_workers=1"]
    process = start(config, tmp_path / "run", options=options)
    wait_for(process, "iter 4/16")
    while not (pids := loaders_of(process)):
        time.sleep(0.1)
    time.sleep(1)  # for the loader to begin
    for pid in (process.pid, *pids):
        os.kill(pid, signal.SIGTERM)
    wait_for(process, "SIGTERM: saving")
    hold.unlink()
    code, text = finish(process)
    assert code == 143, text
    assert "stopped by SIGTERM after iteration 4" in text
    assert are_gone(pids)


@only_on_linux
@pytest.mark.parametrize("gpus", [1, 2])
def test_no_loader_outlives_a_run_that_is_killed(tiny_config, tmp_path, gpus):
    more = ["--gpus", str(gpus)] if gpus > 1 else []
    process = start(tiny_config, tmp_path / "run", *more, options=WORKERS)
    wait_for(process, "iter 3/")
    pids = loaders_of(process)
    victim = process.pid if gpus == 1 else loaders_of(Namespace(pid=pids[0]))[0]
    os.kill(victim, signal.SIGKILL)
    assert finish(process)[0] in (-9, 137)
    assert are_gone(pids)


@only_on_linux
def test_two_processes_save_and_end_when_the_command_that_started_them_is_killed(
    tiny_config, tmp_path
):
    process = start(tiny_config, tmp_path / "run", "--gpus", "2", options=SAVED_AT_THE_STOP)
    wait_for(process, "iter 3/")
    below = loaders_of(process)
    assert len(below) >= 3
    process.send_signal(signal.SIGKILL)
    assert "go on with: fldet train" in finish(process)[1]
    assert are_gone(below, 60)
    assert len(list((tmp_path / "run").glob("iter_*.pth"))) == 1
    assert not (tmp_path / "run" / "run.lock").exists()


@only_on_linux
@pytest.mark.parametrize("gpus", [1, 2])
def test_a_closed_terminal_stops_the_run_and_saves(tiny_config, tmp_path, gpus):
    script = [sys.executable, "-c", PTY, sys.executable, "-m", "fldet", "train", str(tiny_config)]
    options = ["--device", "cpu", "--work-dir", str(tmp_path / "run")]
    options += [*(["--gpus", str(gpus)] if gpus > 1 else []), "--cfg-options"]
    options += [*OPTIONS, *WORKERS, *SAVED_AT_THE_STOP]
    terminal = subprocess.Popen([*script, *options], stdout=subprocess.PIPE, text=True)
    pid = int(terminal.stdout.readline())
    while not list((tmp_path / "run").glob("*/vis_data/scalars.json")):
        time.sleep(0.2)
    terminal.kill()
    terminal.communicate()
    assert are_gone([pid], 60)
    assert len(list((tmp_path / "run").glob("iter_*.pth"))) == 1
    assert not (tmp_path / "run" / "run.lock").exists()


def test_a_second_ctrl_c_ends_the_command_at_once(tiny_config, tmp_path):
    process = start(tiny_config, tmp_path / "run", options=["train_cfg.max_iters=100000"])
    wait_for(process, "iter 3/")
    # the first one while an iteration cannot end
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert finish(process)[0] == 130
    assert time.monotonic() - started < 20


SPOILED = """
_base_ = '{base}'
custom_imports = dict(imports=['fldet', 'spoil'], allow_failed_imports=False)
custom_hooks = [dict(type='SpoilHook')]
"""
SPOIL = """
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SpoilHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1 and get_rank() == 1:
            data_batch['inputs'][0] = data_batch['inputs'][0].float() * float('inf')
"""


@pytest.mark.parametrize("skip", [0, 1])
def test_one_of_two_processes_meets_a_loss_that_is_not_finite(
    tiny_config, tmp_path, monkeypatch, skip
):
    (tmp_path / "spoil.py").write_text(SPOIL)
    config = tmp_path / "spoiled.py"
    config.write_text(SPOILED.format(base=tiny_config.name))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    command = ["train", config, "--device", "cpu", "--gpus", "2", "--cfg-options"]
    done = warm.run(*command, f"skip_nonfinite={skip}", cwd=tmp_path)
    folder = tmp_path / "work_dirs" / "spoiled"
    if skip:
        assert done.returncode == 0, done.stderr
        assert "batches passed over 1" in done.stdout
        return
    assert done.returncode == 1, done.stderr
    assert "the loss of iteration 2 is not finite" in done.stderr
    assert "process 1" in done.stderr
    assert [path.name for path in folder.glob("nonfinite*")] == ["nonfinite_iter_2_rank_1.pth"]
