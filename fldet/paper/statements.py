"""What the paper says about its tables, as data, and whether it is so here.

The list is ``configs/paper/statements.json``. A difference counts where the ranges over seeds do
not overlap: of two equal rows of three seeds, chance alone separates one in ten.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fldet.config import CONFIGS

__all__ = ["Measured", "Statement", "Verdict", "judge", "read_statements"]

Judgement = Literal["holds", "does not hold", "not decided"]
HALF = 0.5  # below this share of the other's AP a result is not usable


@dataclass(frozen=True)
class Measured:
    """A row in this tier.

    Attributes:
        values: of all seeds that came to an end: AP in percent, or milliseconds.
        diverged: seeds whose loss was not finite.
        missing: seeds that failed or are still to be run.
    """

    values: tuple[float, ...] = ()
    diverged: int = 0
    missing: int = 0

    @property
    def mean(self) -> float:
        """Over the seeds that came to an end."""
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Statement:
    """One sentence of the paper about rows of one table.

    Attributes:
        table: its name.
        says: the sentence.
        where: section or table.
        check: ``above``: the best of ``a`` is above the best of ``b``; ``every above``: the lowest
            of ``a`` is; ``not above``: the best of ``a`` is not above the best of ``b``;
            ``diverges``: all seeds of ``a`` do; ``fails``: they do, or have less than half of the
            AP of ``b``.
        a: names of rows.
        b: names of rows.
        quantity: ``AP`` or ``ms``.
    """

    table: str
    says: str
    where: str
    check: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    quantity: str = "AP"


@dataclass(frozen=True)
class Verdict:
    """Whether a statement is so.

    Attributes:
        statement: the statement.
        judgement: ``not decided`` also where seeds are missing.
        why: the figures it rests on, in words.
    """

    statement: Statement
    judgement: Judgement
    why: str


@cache
def read_statements() -> tuple[Statement, ...]:
    """Returns all statements, in the order of the tables."""
    path = CONFIGS / "paper" / "statements.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Statement(**{**one, "a": tuple(one["a"]), "b": tuple(one["b"])})
        for one in content["statements"]
    )


def judge(statement: Statement, rows: Mapping[str, Measured]) -> Verdict:
    """Returns whether a statement is so.

    Args:
        statement: the statement.
        rows: of its table, by name; those that were not run may lack.
    """
    measured = {name: rows.get(name, Measured()) for name in (*statement.a, *statement.b)}
    lacking = [name for name, row in measured.items() if not (row.values or row.diverged)]
    if lacking:
        return Verdict(statement, "not decided", f"not run: {', '.join(lacking)}")
    if statement.check in ("diverges", "fails"):
        return _judge_failure(statement, measured)
    mixed = [name for name, row in measured.items() if row.values and row.diverged]
    if mixed:
        return Verdict(statement, "not decided", f"some seeds diverged: {', '.join(mixed)}")
    lowest = statement.check == "every above"
    a, b = _extreme(statement.a, measured, lowest=lowest), _extreme(statement.b, measured)
    if not (a and b):
        return _judge_diverged(statement, a, b)
    why = f"{_figures(a, measured)} against {_figures(b, measured)}"
    if min(len(measured[a].values), len(measured[b].values)) < 2:
        return Verdict(statement, "not decided", f"one seed: {why}")
    is_above = min(measured[a].values) > max(measured[b].values)
    is_below = max(measured[a].values) < min(measured[b].values)
    if statement.check == "not above":
        return Verdict(statement, "does not hold" if is_above else "holds", why)
    if is_above or is_below:
        return Verdict(statement, "holds" if is_above else "does not hold", why)
    return Verdict(statement, "not decided", f"within the spread: {why}")


def _extreme(
    names: Sequence[str], measured: Mapping[str, Measured], *, lowest: bool = False
) -> str:
    """Returns the row of the highest or lowest mean, "" if that is one that diverged."""
    trained = [name for name in names if measured[name].values]
    if not trained or (lowest and len(trained) < len(names)):
        return ""
    return (min if lowest else max)(trained, key=lambda name: measured[name].mean)


def _judge_diverged(statement: Statement, a: str, b: str) -> Verdict:
    if not a and not b:
        return Verdict(statement, "not decided", "all of these rows diverged")
    why = f"rows that diverged: {', '.join(statement.b if a else statement.a)}"
    is_so = bool(a) != (statement.check == "not above")
    return Verdict(statement, "holds" if is_so else "does not hold", why)


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
        is_so = max(row.values) < HALF * min(reference.values)
        found += f" against {_figures(statement.b[0], measured)}"
        return Verdict(statement, "holds" if is_so else "does not hold", found)
    if row.diverged:
        return Verdict(statement, "not decided", found)
    return Verdict(statement, "does not hold", found)


def _figures(name: str, measured: Mapping[str, Measured]) -> str:
    values = measured[name].values
    return f"{name}: {measured[name].mean:.1f} ({min(values):.1f} to {max(values):.1f})"
