"""What the command that starts several processes makes of a signal and of their exit code."""

import signal
import sys

import pytest

from fldet.engine import launch
from fldet.engine.signals import ASKED_TO_END
from fldet.errors import StoppedError

# In the place of torchrun: has the command that started it signalled, and ends when it is told.
CHILD = """
import os, signal, sys, time
number, code = map(int, sys.argv[1:])
received = []
signal.signal(number, signal.SIG_DFL if code < 0 else lambda *_: received.append(number))
os.kill(os.getppid(), number)
while not received:
    time.sleep(0.01)
sys.exit(code)
"""


@pytest.fixture
def relaunch(monkeypatch):
    """Runs ``relaunch`` with a child that is sent a signal and then ends with an exit code."""
    earlier = {number: signal.getsignal(number) for number in ASKED_TO_END}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def relaunch(number, code):
        command = [sys.executable, "-c", CHILD, str(int(number)), str(code)]
        monkeypatch.setattr(launch, "torchrun_command", lambda *_: command)
        launch.relaunch(None, 2, phases=("train",), device="cpu")

    yield relaunch
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ASKED_TO_END)
def test_a_run_that_was_done_when_the_signal_came_is_no_stop(relaunch, number):
    relaunch(number, 0)


@pytest.mark.parametrize("number", ASKED_TO_END)
@pytest.mark.parametrize("has_handler", [True, False])
def test_processes_that_stop_get_the_signal_that_came(relaunch, number, has_handler):
    with pytest.raises(StoppedError, match="the 2 processes have stopped") as stopped:
        relaunch(number, 128 + number if has_handler else -1)
    assert stopped.value.exit_code == 128 + number


@pytest.mark.parametrize("number", ASKED_TO_END)
def test_a_failure_while_stopping_keeps_its_exit_code(relaunch, number):
    with pytest.raises(SystemExit) as failed:
        relaunch(number, 6)
    assert failed.value.code == 6


def test_a_stop_may_take_longer_than_torchrun_allows(monkeypatch):
    given = []
    monkeypatch.setattr(
        launch, "_run_group", lambda _, environment: given.append(environment) or (0, 0)
    )
    launch.relaunch(None, 2, phases=("train",), device="cpu")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "20")
    launch.relaunch(None, 2, phases=("train",), device="cpu")
    assert [one["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] for one in given] == ["600", "20"]
