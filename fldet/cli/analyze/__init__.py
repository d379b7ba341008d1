"""``fldet analyze``: each module here is a command of its name, with its ``EXAMPLES``."""

from importlib import import_module
from pkgutil import iter_modules

import typer

from fldet.cli.group import GroupWithPlugins

app = typer.Typer(
    cls=GroupWithPlugins,
    help="Look at data and results.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
for _found in iter_modules(__path__):
    _module = import_module(f"{__name__}.{_found.name}")
    app.command(epilog=_module.EXAMPLES)(getattr(_module, _found.name))


@app.callback()
def analyze() -> None:
    """Look at data and results."""
