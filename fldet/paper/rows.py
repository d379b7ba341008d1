"""The rows of the paper's tables: what it states, which config is the row, what came out here.

The index is ``configs/paper/rows.json``. Beside the paper's tables it has some of rows that the
paper does not have: controls, the balance of the two losses, remedies for rare classes.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fldet.config.load import CONFIGS
from fldet.errors import UsageError, nearest
from fldet.runs.outcome import RESULT, Outcome, read_outcome

INDEX = CONFIGS / "paper" / "rows.json"
SYSTEMS = CONFIGS / "paper" / "systems.json"
FIGURES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


@dataclass(frozen=True)
class Row:
    """One row of a table, or one cell of a table with two keys."""

    name: str  # as the paper labels it, ``2/.25`` or ``OHEM 128/.7``
    config: Path  # the file, relative to the repository
    # what the paper states, in percent: AP, AP50, AP75, for some rows AP_S, AP_M, AP_L; and ``ms``
    # per image on an Nvidia M40. Empty for controls.
    paper: dict[str, float]
    # of a control the rows that it is to be compared with, as ``table1b 2/.25``
    beside: tuple[str, ...] = ()
    # of a system the config of a small version, whole, for the tier ``laptop``
    small: Path | None = None


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    # ``table1a`` to ``table3``, ``controls``, ``balance``, ``classes`` or ``systems``
    name: str
    title: str  # what varies, and on which model
    # images the paper tested on: minival is COCO's val2017; test-dev has no public truth
    split: str
    rows: tuple[Row, ...]  # in the paper's order
    tiers: tuple[str, ...] = ()  # those that can run it; all if it names none
    why: str = ""  # the others cannot, to be read after "it"
    per_class: bool = False  # whether the report has the AP of each class


@dataclass(frozen=True)
class Comparison:
    """A row with what came out, if it was run."""

    row: Row
    ours: Outcome | None  # None if no work dir holds a result
    delta: float | None  # our AP minus the paper's, in percent; None where either is missing


@cache
def read_tables() -> tuple[Table, ...]:
    """Returns all tables: the paper's in its order, the controls, the systems of Table 2."""
    content = json.loads(INDEX.read_text(encoding="utf-8"))
    tables = [_table(name, table) for name, table in content["tables"].items()]
    return (*tables, _systems())


def find_table(name: str) -> Table:
    """Returns a table by its name; a UsageError names those there are."""
    tables = {table.name: table for table in read_tables()}
    if name not in tables:
        raise UsageError(
            f"the paper has no {name!r}",
            expected=nearest(name, tables) or f"one of: {', '.join(tables)}",
            hint="fldet paper list",
        )
    return tables[name]


def compare(table: Table, work_dirs: Path) -> tuple[Comparison, ...]:
    """Returns every row beside the result in its work dir, which is named after its config.

    Raises:
        DataError: a result cannot be read.
    """
    return tuple(_compare(row, work_dirs / row.config.stem / RESULT) for row in table.rows)


def _table(name: str, content: dict[str, Any]) -> Table:
    folder = Path("configs", "paper", name)
    rows = [
        Row(
            row["name"],
            folder / f"{row['config']}.py",
            row["paper"],
            tuple(row.get("beside", ())),
        )
        for row in content["rows"]
    ]
    options = {key: content[key] for key in ("why", "per_class") if key in content}
    tiers = tuple(content.get("tiers", ()))
    return Table(name, content["title"], content["split"], tuple(rows), tiers, **options)


def _systems() -> Table:
    """Returns RetinaNet and the systems of Table 2 that have a config here."""
    content = json.loads(SYSTEMS.read_text(encoding="utf-8"))
    rows = [
        Row(
            one["name"],
            Path("configs", one["config"]),
            {name: one[name] for name in (*FIGURES, "ms") if one[name] is not None},
            small=Path("configs", one["small"]),
        )
        for one in (content["retinanet"], *content["systems"])
        if one["config"]
    ]
    return Table(
        *("systems", "the systems of Table 2", "test-dev", tuple(rows)),
        tiers=("full", "laptop"),
        why="has versions of the paper's size, and small ones for the data of the tier laptop",
    )


def _compare(row: Row, file: Path) -> Comparison:
    ours = read_outcome(file) if file.is_file() else None
    found, stated = ours.figures["AP"] if ours else None, row.paper.get("AP")
    delta = None if found is None or stated is None else found - stated
    return Comparison(row, ours, delta)
