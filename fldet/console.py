"""What of MMEngine's log reaches the terminal."""

import io
import logging
import sys
from collections.abc import Callable

from mmengine.logging import MMLogger

from fldet.text import printable

# Printed by MMEngine on every run, about nothing that a user can change.
NOISE = ("FileClient", "HardDiskBackend", "Fast sampler-level resume is unavailable")


def quiet_console(logger: MMLogger) -> None:
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
