"""Runs on a terminal, and as lines."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fldet.cli.output import note
from fldet.text import duration, table, terminal

if TYPE_CHECKING:
    from fldet.runs.runner import Status


TIMING_MINUTES = 1.0  # of a row of Table 1e on two CPU cores, by order of magnitude
REDRAW_SECONDS = 1.0
SAY_SECONDS = 60.0  # between two lines about runs under way, where there is no terminal


class View:
    """Rows by seeds or folds on a terminal, redrawn; lines elsewhere. On stderr."""

    def __init__(self, jobs: int, minutes: float | None) -> None:
        """Takes the runs at a time, and the minutes of one if the tier's header says them."""
        self._jobs = jobs
        self._minutes = minutes
        self._live: Any = None
        self._shown = 0.0
        self._states: dict[Path, str] = {}
        self._said: dict[Path, float] = {}

    def __enter__(self) -> "View":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn from this thread only: processes are started from it.
            self._live = Live(console=Console(file=terminal()), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, statuses: "Sequence[Status]") -> None:
        """Shows how far all runs are; draws at most once a second, but for the last time."""
        news = [one for one in statuses if self._states.get(one.run.folder) != one.state]
        self._states.update((one.run.folder, one.state) for one in news)
        if self._live:
            if news or time.monotonic() - self._shown >= REDRAW_SECONDS:
                self._shown = time.monotonic()
                self._live.update(self._table(statuses), refresh=True)
            return
        for one in statuses:
            self._say(one, statuses, is_news=one in news)

    def _table(self, statuses: "Sequence[Status]") -> Any:
        from rich.console import Group
        from rich.table import Table

        columns = sorted({(one.run.seed, one.run.folder.name) for one in statuses})
        names = list(dict.fromkeys(name for _, name in columns))
        drawn = Table("", *(name.replace("_", " ") for name in names))
        rows: dict[str, dict[str, str]] = {}
        for one in statuses:
            rows.setdefault(one.run.folder.parent.name, {})[one.run.folder.name] = cell(one)
        for name, cells in rows.items():
            drawn.add_row(name, *(cells.get(column, "") for column in names))
        return Group(drawn, self._caption(statuses))

    def _caption(self, statuses: "Sequence[Status]") -> str:
        done = sum(one.state in ("done", "diverged") for one in statuses)
        left = minutes_left(statuses, self._jobs, self._minutes)
        rest = f", about {duration(left)} left" if left else ""
        return f"{done} of {len(statuses)} runs done{rest}"

    def _say(self, one: "Status", statuses: "Sequence[Status]", *, is_news: bool) -> None:
        now = time.monotonic()
        if one.state == "waiting":
            return
        is_over = one.state in ("done", "diverged", "failed", "stopped")
        if is_news or (not is_over and now - self._said[one.run.folder] > SAY_SECONDS):
            self._said[one.run.folder] = now
            rest = f"; {self._caption(statuses)}" if one.state in ("done", "diverged") else ""
            why = f"\n  {one.reason}\n  see {one.run.log}" if one.state == "failed" else ""
            note(f"{one.run.name}: {cell(one)}{rest}{why}")


def cell(one: "Status") -> str:
    """Returns the state of a run in few words."""
    if one.state == "done":
        return "done" if one.ap is None else f"done, AP {one.ap:.1f}"
    if one.iterations and one.state == "train":
        return f"train {one.iteration}/{one.iterations}"
    return one.state


def minutes_left(statuses: "Sequence[Status]", jobs: int, stated: float | None) -> float | None:
    """Returns an estimate for the runs that are not done, None where nothing is known.

    By the median of the runs done so far of the same kind; before there are any, by what the tier
    states of a training.
    """
    from statistics import median

    total = 0.0
    for timing in (False, True):
        of_kind = [one for one in statuses if one.run.is_timing == timing]
        ended = [one.seconds / 60 for one in of_kind if one.state == "done" and one.seconds]
        todo = [one for one in of_kind if one.state not in ("done", "diverged", "failed")]
        typical = median(ended) if ended else TIMING_MINUTES if timing else stated
        if todo and typical is None:
            return None
        left = sum(max(0.0, (typical or 0.0) - one.seconds / 60) for one in todo)
        total += left if timing else left / jobs
    return total


def summary(statuses: "Sequence[Status]") -> str:
    """Returns the runs as a table, then those that failed with their logs."""
    cells = [(one.run.name, cell(one), duration(one.seconds / 60)) for one in statuses]
    lines = [table(("run", "state", "time"), cells, align="left")]
    lines += [
        f"{one.run.name} failed: {one.reason}\n  see {one.run.log}"
        for one in statuses
        if one.state == "failed"
    ]
    return "\n".join(lines)
