"""Signals that ask a run to end: noted, and obeyed between two iterations."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fldet.errors import StoppedError

# The terminal was closed, or the connection to it was lost; Windows has no such signal.
HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
ASKED_TO_END = (signal.SIGINT, signal.SIGTERM, *HANGUP)
# torchrun hands a Ctrl-C on to processes that the terminal has sent it to as well.
_SAME_PRESS_SECONDS = 2.0


class Received:
    """The first signal that this process has received.

    A second Ctrl-C raises ``KeyboardInterrupt`` where the process is.

    Attributes:
        number: of the signal, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._interrupted_at = -_SAME_PRESS_SECONDS
        self._process = os.getpid()

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Handles a signal."""
        if os.getpid() != self._process:  # forked from it: its parent decides
            return
        if number in HANGUP:
            _drop_lost_streams()
        now = time.monotonic()
        again = number == signal.SIGINT and self.number and not self._is_echo(now)
        if number == signal.SIGINT:
            self._interrupted_at = now
        if again:
            raise KeyboardInterrupt
        if not self.number:
            self.number = number
            _say(f"{signal.Signals(number).name}: saving, then stopping; Ctrl-C stops at once")

    def _is_echo(self, now: float) -> bool:
        return "RANK" in os.environ and now - self._interrupted_at < _SAME_PRESS_SECONDS


@contextmanager
def noted_signals() -> Iterator[Received]:
    """Gives what counts the signals of this process; puts the earlier handlers back at the end.

    torchrun sends a signal to all of its processes as soon as it has one itself or the first of
    them has ended; by then they may have saved and come to their end. In a process of torchrun that
    stops because it, or another one, was asked to, the handlers stay, so that this signal does not
    kill it before it has said what it saved.

    Outside the main thread Python allows no handlers: nothing is noted there. SIGHUP stays ignored
    where it is, by ``nohup``.
    """
    received = Received()
    earlier: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in ASKED_TO_END:
            if number not in HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                earlier[number] = signal.signal(number, received.note)
    try:
        yield received
    except StoppedError as stopped:
        received.number = received.number or stopped.exit_code - 128
        raise
    finally:
        if not (received.number and "RANK" in os.environ):
            for number, handler in earlier.items():
                signal.signal(number, handler)


def _drop_lost_streams() -> None:
    """Lets what is written to a terminal that is gone vanish; it would be an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream)


def _say(text: str) -> None:
    """Writes past Python's buffers, which the signal may have met half written."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, f"{text}\n".encode())
