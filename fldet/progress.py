"""Progress of long work: a bar on a terminal or in a notebook, and lines of the log elsewhere."""

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

from fldet.text import printable, terminal

log = logging.getLogger("fldet")

T = TypeVar("T")


class StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is now: a progress bar puts its own stream there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record, with its level from a warning on."""
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        print(prefix + printable(self.format(record)), file=sys.stderr, flush=True)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Prints what fldet logs on stderr for a while, if nobody has configured logging.

    So a training from Python or in a notebook speaks as the command does, and a program with
    handlers of its own hears it there alone.
    """
    if log.handlers or log.level != logging.NOTSET or logging.getLogger().handlers:
        yield
        return
    handler = StderrHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


def shows_bars() -> bool:
    """Returns whether stderr is a terminal, or this a notebook that can redraw a bar."""
    from rich.console import Console

    console = Console(file=terminal())
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def make_bar(*, transient: bool = False) -> Any:
    """Returns a bar on stderr with the count, the status and the remaining time; 80 columns."""
    from rich import progress
    from rich.console import Console

    console = Console(file=terminal())
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=12),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[status]}"),
        progress.TextColumn("eta"),
        progress.TimeRemainingColumn(),
        console=console,
        disable=not shows_bars(),
        refresh_per_second=2,
        transient=transient,
    )


def with_progress(
    items: Iterable[T], words: str, total: int, *, in_log: bool = False
) -> Iterator[T]:
    """Yields items on, and shows how many have come, as ``words``: ``images``.

    With ``in_log`` a line at each tenth is logged where there is no terminal.
    """
    with make_bar(transient=not in_log) as bar:
        task = bar.add_task(words, total=total, status="")
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(task, completed=done)
            if in_log and bar.disable and done % max(1, total // 10) == 0:
                log.info("%s %d/%d", words, done, total)
