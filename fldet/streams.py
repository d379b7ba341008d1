"""The terminal as commands see it: always there, in any encoding, obeying nothing that is printed.

What is printed may hold names from outside (``fldet.text``). A stream that was closed before the
start is the null device, so that no file of ours gets its number; one whose reader has gone is so
from then on.
"""

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from fldet.text import printable

_GONE = (errno.EPIPE, errno.EIO)  # no reader; the terminal was closed


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Has ``sys.stdout`` and ``sys.stderr`` print safely.

    Where nobody reads stderr any more a run goes on; without stdout there is nobody to tell the
    result, which Typer ends quietly.
    """
    open_closed_streams()
    before: Any = sys.stdout, sys.stderr
    for stream in (*before, sys.__stdout__, sys.__stderr__):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    safe: Any = _Safe(before[0]), _Safe(before[1], survives=True)
    sys.stdout, sys.stderr = safe
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            with _without_reader(stream):
                stream.flush()


class _Safe:
    """A stream that prints what a terminal would obey as text."""

    def __init__(self, stream: Any, *, survives: bool = False) -> None:
        self.obeying = stream
        self._survives = survives

    def write(self, text: str) -> int:
        # bars of libraries begin with a carriage return
        start = text[: text.startswith("\r")]
        with self._guarded():
            self.obeying.write(start + printable(text[len(start) :]))
        return len(text)

    def flush(self) -> None:
        with self._guarded():
            self.obeying.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.obeying, name)

    def _guarded(self) -> contextlib.AbstractContextManager[None]:
        return _without_reader(self.obeying) if self._survives else contextlib.nullcontext()


@contextlib.contextmanager
def _without_reader(stream: Any) -> Iterator[None]:
    """Sends to the null device what a stream holds, and what comes, if nobody reads it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def open_closed_streams() -> None:
    """Opens the null device for each of the first three descriptors that is closed."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(number, True)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


# Printed by MMEngine on every run, about nothing that a user can change.
NOISE = ("FileClient", "HardDiskBackend", "Fast sampler-level resume is unavailable")


def quiet_console(logger: logging.Logger) -> None:
    """Sends what the logger shows on the console to stderr, from warnings upwards."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.stream = _Stderr()  # setStream would flush the old one, which may be closed
            handler.setLevel(max(handler.level, logging.WARNING))
            handler.addFilter(_is_news)


def _name_log(file: str) -> Callable[[logging.LogRecord], None]:
    """Returns what raises an error of writing to a log; logging prints it and goes on."""

    def handle(_record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            error.filename = file
        raise  # called while the error is handled

    return handle


class _Stderr(io.TextIOBase):
    """What ``sys.stderr`` is when something is written: a progress bar puts its own stream there.

    Loggers outlive streams: one that keeps a stream may find it closed.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(printable(text))

    def flush(self) -> None:
        sys.stderr.flush()


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in NOISE)
