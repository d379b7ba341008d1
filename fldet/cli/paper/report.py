"""``fldet paper report``."""

from pathlib import Path
from typing import Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.paper.run import Tables, TierName, WorkDir

EXAMPLES = """
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
    from fldet.paper.write import write_report

    done = write_report(names or (), tier=tier, work_dir=work_dir, out_dir=out_dir)
    page = done.files[0]
    Output("paper report", as_json=json, quiet=quiet).result(
        done.result, text=lambda: page.read_text(encoding="utf-8"), essential=page
    )
    note("\n".join(map(str, done.files)))
