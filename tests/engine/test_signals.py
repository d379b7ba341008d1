import os
import signal

import pytest

from fldet.engine.signals import ASKED_TO_END, noted_signals
from fldet.errors import StoppedError


@pytest.fixture
def hangup():
    """Sets what SIGHUP does; the earlier handler is put back."""
    earlier = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, earlier)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted(hangup, number):
    hangup(signal.SIG_DFL)
    before = signal.getsignal(number)
    with noted_signals() as received:
        os.kill(os.getpid(), number)
        assert received.number == number
    assert signal.getsignal(number) is before


@pytest.fixture
def put_back():
    """Puts the handlers of all signals back."""
    earlier = {number: signal.getsignal(number) for number in ASKED_TO_END}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("first", ASKED_TO_END)
def test_a_process_of_torchrun_that_has_stopped_survives_the_signal_it_hands_on(
    monkeypatch, capfd, first, again
):
    monkeypatch.setenv("RANK", "0")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with noted_signals() as received:
        os.kill(os.getpid(), first)
    os.kill(os.getpid(), again)
    assert received.number == first
    assert capfd.readouterr().err.count("saving") == 1


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("first", ASKED_TO_END)
def test_a_process_of_torchrun_that_stops_with_another_survives_too(monkeypatch, capfd, first):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(StoppedError), noted_signals() as received:
        raise StoppedError("stopped", exit_code=128 + first)
    os.kill(os.getpid(), signal.SIGTERM)
    assert received.number == first
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("put_back")
def test_a_process_of_torchrun_that_was_not_asked_to_end_has_its_handlers_again(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    before = signal.getsignal(signal.SIGTERM)
    with noted_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_under_nohup_a_closed_terminal_changes_nothing(hangup):
    hangup(signal.SIG_IGN)
    with noted_signals() as received:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not received.number
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_what_is_written_to_a_closed_terminal_is_no_error(hangup):
    hangup(signal.SIG_DFL)
    terminal, screen = os.openpty()
    kept = os.dup(2)
    os.dup2(screen, 2)
    os.close(screen)
    os.close(terminal)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            os.write(2, b"x")
        with noted_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert os.write(2, b"x") == 1
        assert received.number == signal.SIGHUP
    finally:
        os.dup2(kept, 2)
        os.close(kept)
