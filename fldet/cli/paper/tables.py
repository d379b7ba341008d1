"""``fldet paper list`` and ``show``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command
from fldet.cli.paper.run import Tables
from fldet.text import markdown_table, table

if TYPE_CHECKING:
    from fldet.paper import Comparison, Table

LIST_EXAMPLES = """
  fldet paper list
  fldet paper list --json
"""
SHOW_EXAMPLES = """
  fldet paper show table1b
  fldet paper show table1b table1d --markdown
  fldet paper show --work-dirs /data/runs --json
"""

THREE = ("AP", "AP50", "AP75")
SIZES = ("AP_S", "AP_M", "AP_L")


@command
def list_tables(json: options.Json = False) -> None:
    """List the tables and their rows."""
    from fldet.paper import read_tables

    tables = read_tables()
    lines = [
        table(
            (item.name, item.title),
            [(row.name, str(row.config)) for row in item.rows],
            align="left",
        )
        for item in tables
    ]
    Output("paper list", as_json=json).result(tables, text="\n\n".join(lines))


@command
def show(
    names: Tables = None,
    work_dirs: Annotated[
        Path, typer.Option(help="Folder of the work dirs; results in it are shown.")
    ] = Path("work_dirs"),
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    json: options.Json = False,
) -> None:
    """Show tables of the paper beside rows trained with fldet train.

    What fldet paper run has trained is in fldet paper report.
    """
    from fldet.paper import compare, find_table, read_tables

    tables = [find_table(name) for name in names] if names else read_tables()
    rows = {item.name: compare(item, work_dirs) for item in tables}
    Output("paper show", as_json=json).result(
        rows, text=lambda: "\n\n".join(table_text(t, rows[t.name], markdown) for t in tables)
    )


def table_text(item: "Table", rows: Sequence["Comparison"], markdown: bool) -> str:
    """Returns a table as text: the paper, ours, the difference of AP, all in percent."""
    columns = {
        "row": [row.row.name for row in rows],
        "paper AP/50/75": [figures(row.row.paper, THREE) for row in rows],
        "S/M/L": [figures(row.row.paper, SIZES) for row in rows],
        "ms (M40)": [number(row.row.paper.get("ms"), digits=0) for row in rows],
        "ours AP/50/75": [figures(row.ours.figures if row.ours else {}, THREE) for row in rows],
        "ours S/M/L": [figures(row.ours.figures if row.ours else {}, SIZES) for row in rows],
        "delta": [number(row.delta, sign=True) for row in rows],
        "images": [str(row.ours.num_images) if row.ours else "-" for row in rows],
        "config": [str(row.row.config) for row in rows],
    }
    for name in [*columns][2:]:  # what no row has is left out
        if set(columns[name]) == {"-"}:
            del columns[name]
    header, cells = tuple(columns), list(zip(*columns.values(), strict=True))
    title = f"{item.name}: {item.title} ({item.split})"
    if markdown:
        return f"### {title}\n\n{markdown_table(header, cells)}"
    return f"{title}\n{table(header, cells, align='left')}"


def figures(values: Mapping[str, float | None], names: Sequence[str]) -> str:
    """Returns figures with slashes between them, "-" if the first is not there."""
    if values.get(names[0]) is None:
        return "-"
    return "/".join(number(values.get(name)) for name in names)


def number(value: float | None, *, digits: int = 1, sign: bool = False) -> str:
    """Returns a number with so many digits, "-" for None."""
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"
