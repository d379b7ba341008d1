"""Progress of long work: a bar on a terminal, and lines of the log elsewhere."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from fldet.text import terminal

log = logging.getLogger("fldet")

T = TypeVar("T")


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
        disable=not console.is_terminal,
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
