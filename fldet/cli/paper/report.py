"""``fldet paper report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.paper.run import Tables, TierName, WorkDir

if TYPE_CHECKING:
    from fldet.paper.report import Report, RowReport, TableReport

EXAMPLES = """\b
Examples:
  fldet paper report --tier laptop
  fldet paper report table1b table1d --tier laptop --out-dir docs/reproduction
"""


@command
def report(
    names: Tables = None,
    tier: TierName = "laptop",
    work_dir: WorkDir = Path("work_dirs/paper"),
    out_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; an earlier report of the tier there is replaced.",
            show_default="report in the tier's folder",
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the runs of a tier with the paper: Markdown, JSON, a figure for each table.

    Kendall's tau of the order of the rows with its range and p-value, and which of the paper's
    statements hold here. Rows that diverged or were not run are shown as such.
    """
    from fldet.files import write_atomically
    from fldet.paper.page import markdown
    from fldet.paper.plan import tables_of
    from fldet.paper.report import make_report
    from fldet.paper.tiers import find_tier
    from fldet.results import to_json

    chosen = find_tier(tier)
    found = make_report(tables_of(names or (), chosen), chosen, work_dir)
    folder = out_dir or work_dir / chosen.name / "report"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {table.key: _draw(found, table, folder) for table in found.tables}
    page = markdown(found, {name: paths[0].name for name, paths in pictures.items()})
    files = [
        write_atomically(folder / f"{chosen.name}.md", page),
        write_atomically(folder / f"{chosen.name}.json", to_json("paper report", found)),
        *(path for paths in pictures.values() for path in paths),
    ]
    out = Output("paper report", as_json=json, quiet=quiet)
    out.result(found, text=page, essential=files[0])
    note("\n".join(str(path) for path in files))


def _draw(report: "Report", table: "TableReport", folder: Path) -> list[Path]:
    from fldet.paper.picture import Line, plot

    lines = [Line(row.name, row.paper, row.ours.values, _note(row)) for row in table.rows]
    tau = table.agreement.tau
    agreed = "" if tau is None else f"; Kendall's tau {tau:.2f}"
    quantity = "AP [%]" if table.quantity == "AP" else "time per image [ms]"
    title = f"{table.key}, tier {report.tier}{agreed}"
    return plot(title, quantity, lines, folder / f"{report.tier}_{table.key}")


def _note(row: "RowReport") -> str:
    if not row.ours.diverged:
        return ""
    return "diverged" if not row.ours.values else f"{row.ours.diverged} diverged"
