"""``fldet analyze``: one module for each command."""

import typer

from fldet.cli.analyze import anchors, dataset

app = typer.Typer(
    help="Look at data and results.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
app.command(epilog=dataset.EXAMPLES)(dataset.dataset)
app.command(epilog=anchors.EXAMPLES)(anchors.anchors)


@app.callback()
def analyze() -> None:
    """Look at data and results."""
