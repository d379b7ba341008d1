"""``fldet data``: what a data set is, and what is wrong with it, before anything is trained."""

import typer

from fldet.cli.data import check, convert, inspect

app = typer.Typer(
    help="Look at, check and convert data sets.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
app.command(epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(epilog=check.EXAMPLES)(check.check)
app.command(epilog=convert.EXAMPLES)(convert.convert)


@app.callback()
def data() -> None:
    """Look at, check and convert data sets."""
