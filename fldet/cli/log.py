"""Where messages of the package go while a command runs; apart, for ``--help`` needs no logging."""

import logging
import sys

from fldet.cli.output import is_first_process
from fldet.text import printable


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is now: a progress bar puts its own stream there."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        print(prefix + printable(self.format(record)), file=sys.stderr, flush=True)


def set_up_logging() -> None:
    """Has what fldet logs printed on stderr, in the first process alone unless it is an error."""
    log = logging.getLogger("fldet")
    log.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    log.propagate = False
    if not any(isinstance(handler, _StderrHandler) for handler in log.handlers):
        log.addHandler(_StderrHandler())
