"""``fldet analyze``: one module for each command."""

import typer

from fldet.cli.analyze import (
    anchors,
    dataset,
    errors,
    flops,
    log,
    loss_cdf,
    loss_curves,
    speed_accuracy,
)
from fldet.cli.group import GroupWithPlugins

app = typer.Typer(
    cls=GroupWithPlugins,
    help="Look at data and results.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
app.command(epilog=dataset.EXAMPLES)(dataset.dataset)
app.command(epilog=anchors.EXAMPLES)(anchors.anchors)
app.command(epilog=log.EXAMPLES)(log.log)
app.command(epilog=errors.EXAMPLES)(errors.errors)
app.command(epilog=flops.EXAMPLES)(flops.flops)
app.command(epilog=loss_cdf.EXAMPLES)(loss_cdf.loss_cdf)
app.command(epilog=loss_curves.EXAMPLES)(loss_curves.loss_curves)
app.command(epilog=speed_accuracy.EXAMPLES)(speed_accuracy.speed_accuracy)


@app.callback()
def analyze() -> None:
    """Look at data and results."""
