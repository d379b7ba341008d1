"""``fldet paper``: the paper's tables, row by row."""

import typer

from fldet.cli.paper import report, run, tables

app = typer.Typer(
    help="The paper's tables: every row is a config.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
app.command("list", epilog=tables.LIST_EXAMPLES)(tables.list_tables)
app.command(epilog=tables.SHOW_EXAMPLES)(tables.show)
app.command(epilog=run.EXAMPLES, short_help="Train and test the rows of the tables.")(run.run)
app.command(epilog=report.EXAMPLES, short_help="Compare the runs of a tier with the paper.")(
    report.report
)


@app.callback()
def paper() -> None:
    """The paper's tables: every row is a config."""
