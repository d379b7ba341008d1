"""``StopHook``: all processes stop once the checkpoint is written."""

import signal
from types import SimpleNamespace

import pytest

from fldet.engine.hooks import CheckpointHook, StopHook
from fldet.errors import StoppedError


@pytest.fixture
def stop(monkeypatch):
    """Runs the hook after an iteration of a process; returns what it did, in order."""

    def stop(received, of_others):
        done = []

        def highest(value):
            done.append("meets the others")
            return max(value, of_others)

        def save_now(_hook, _runner, iteration):
            done.append(f"saves {iteration}")
            return f"iter_{iteration}.pth"

        monkeypatch.setattr(CheckpointHook, "save_now", save_now)
        hook = StopHook(lambda: received, "fldet train config.py --resume")
        hook._agreement = SimpleNamespace(highest=highest)
        wrapper = SimpleNamespace(should_update=lambda: True)
        runner = SimpleNamespace(
            hooks=[CheckpointHook()], iter=4, max_iters=8, work_dir="run", optim_wrapper=wrapper
        )
        error = None
        try:
            hook.after_train_iter(runner, 4)
        except StoppedError as stopped:
            error = stopped
        return done, error

    return stop


@pytest.mark.parametrize(
    ("received", "of_others"),
    [(signal.SIGTERM, 0), (0, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)],
)
def test_a_process_ends_only_when_all_have_saved(stop, received, of_others):
    done, error = stop(received, of_others)
    assert done == ["meets the others", "saves 5", "meets the others"]
    assert error.exit_code == 143
    assert error.message == "stopped by SIGTERM after iteration 5 of 8, saved iter_5.pth in run"


def test_without_a_signal_nothing_is_saved(stop):
    assert stop(0, 0) == (["meets the others"], None)
