"""What the paper says about its tables, and what we ask, as data, and whether it is so here.

The list is ``configs/paper/statements.json``. A difference counts where the ranges over seeds do
not overlap. Chance alone separates two equal rows of three seeds in one case of ten, of two seeds
in one of three.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal

from fldet.config.load import CONFIGS
from fldet.results import read_stored

Judgement = Literal["holds", "does not hold", "not contradicted", "not decided"]
DIVERGED = float("-inf")  # below every AP
OURS = "not in the paper"
HALF = 0.5  # below this share of the other's AP a result is not usable


@dataclass(frozen=True)
class Measured:
    """A row in this tier."""

    # of all seeds that came to an end: AP in percent, or milliseconds
    values: tuple[float, ...] = ()
    diverged: int = 0  # seeds whose loss was not finite
    missing: int = 0  # seeds that failed or are still to be run

    @property
    def mean(self) -> float:
        """Over the seeds that came to an end."""
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Statement:
    """One sentence about rows of one table, and of others beside them: the paper's, or ours."""

    table: str
    says: str
    where: str  # section or table, or ``OURS``
    # ``above``: the best of ``a`` is above all of ``b``; ``every above``: all of ``a`` are; ``not
    # above``: the best of ``a`` is not above all of ``b``; ``diverges``: all seeds of ``a`` do;
    # ``fails``: they do, or have less than half of the AP of ``b``
    check: str
    # names of rows; ``table1b 2/.25`` of another table, where it is beside a row of this one
    a: tuple[str, ...]
    b: tuple[str, ...]
    quantity: str = "AP"  # ``AP``, ``ms`` or ``AP of CLASS``


@dataclass(frozen=True)
class Verdict:
    """Whether a statement is so."""

    statement: Statement
    # ``not decided`` also where a seed is missing or there is only one. That a row is not above
    # another is ``not contradicted`` by ranges that overlap.
    judgement: Judgement
    why: str  # the figures it rests on, in words


@cache
def read_statements() -> tuple[Statement, ...]:
    """Returns all statements, in the order of the tables."""
    path = CONFIGS / "paper" / "statements.json"
    found: tuple[Statement, ...] = read_stored(
        path, tuple[Statement, ...], "statements", what="list of statements"
    )
    return found


def judge(statement: Statement, rows: Mapping[str, Measured]) -> Verdict:
    """Returns whether a statement is so; of the rows of its table some may be missing."""
    measured = {name: rows.get(name, Measured()) for name in (*statement.a, *statement.b)}
    if problem := _incomplete(measured):
        return Verdict(statement, "not decided", problem)
    if statement.check in ("diverges", "fails"):
        return _judge_failure(statement, measured)
    mixed = [name for name, row in measured.items() if row.values and row.diverged]
    if mixed:
        return Verdict(statement, "not decided", f"some seeds diverged: {', '.join(mixed)}")
    every = statement.check == "every above"
    values = {name: row.values or (DIVERGED,) for name, row in measured.items()}
    a = (min if every else max)(statement.a, key=lambda name: fmean(values[name]))
    b = max(statement.b, key=lambda name: fmean(values[name]))
    all_a = [value for name in statement.a for value in values[name]]
    all_b = [value for name in statement.b for value in values[name]]
    is_above = min(all_a if every else values[a]) > max(all_b)
    is_below = max(values[a] if every else all_a) < min(values[b])
    why = f"{_figures(a, measured)} against {_figures(b, measured)}"
    if statement.check == "not above":
        judgement: Judgement = "does not hold" if is_above else "not contradicted"
        return Verdict(statement, "holds" if is_below else judgement, why)
    if is_above or is_below:
        return Verdict(statement, "holds" if is_above else "does not hold", why)
    return Verdict(statement, "not decided", f"within the spread: {why}")


def _incomplete(measured: Mapping[str, Measured]) -> str:
    """Returns which rows lack seeds, "" if none does."""
    begun = {name: len(row.values) + row.diverged for name, row in measured.items()}
    problems = {
        "no result": [name for name in measured if not begun[name]],
        "not of all seeds": [name for name in measured if begun[name] and measured[name].missing],
        "one seed": [name for name in measured if begun[name] == 1],
    }
    return next((f"{what}: {', '.join(names)}" for what, names in problems.items() if names), "")


def _judge_failure(statement: Statement, measured: Mapping[str, Measured]) -> Verdict:
    (name,) = statement.a
    row = measured[name]
    why = f"{row.diverged} of {row.diverged + len(row.values)} seeds diverged"
    if not row.values:
        return Verdict(statement, "holds", why)
    found = f"{why}; {_figures(name, measured)}"
    if statement.check == "fails":
        reference = measured[statement.b[0]]
        if not reference.values:
            return Verdict(statement, "not decided", f"{statement.b[0]} diverged")
        found += f" against {_figures(statement.b[0], measured)}"
        if max(row.values) < HALF * min(reference.values):
            return Verdict(statement, "holds", found)
        if min(row.values) < HALF * max(reference.values):
            return Verdict(statement, "not decided", found)
    return Verdict(statement, "not decided" if row.diverged else "does not hold", found)


def _figures(name: str, measured: Mapping[str, Measured]) -> str:
    values = measured[name].values
    if not values:
        return f"{name}: diverged"
    return f"{name}: {measured[name].mean:.1f} ({min(values):.1f} to {max(values):.1f})"
