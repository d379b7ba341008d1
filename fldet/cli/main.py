"""The command ``fldet``: wiring of its subcommands."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from fldet.cli import (
    analyze,
    benchmark,
    config,
    data,
    doctor,
    export,
    init,
    paper,
    paper_run,
    plugins,
    predict,
    report,
    test,
    train,
)
from fldet.cli.group import GroupWithPlugins

# Options that take several values, and which arguments are values of theirs.
LISTS: dict[str, Callable[[str], bool]] = {
    "--cfg-options": lambda argument: "=" in argument,
    "--depths": str.isdigit,
    "--scales": str.isdigit,
}

app = typer.Typer(
    name="fldet",
    cls=GroupWithPlugins,
    help="RetinaNet and the focal loss: train, test, look at the pictures.",
    epilog="Start with: fldet train configs/shapes/retinanet_r18_shapes.py",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.command(epilog=init.EXAMPLES)(init.init)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=test.EXAMPLES)(test.test)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=predict.EXAMPLES)(predict.predict)
app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=benchmark.EXAMPLES)(benchmark.benchmark)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(epilog=plugins.EXAMPLES)(plugins.plugins)
app.add_typer(analyze.app, name="analyze")
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(paper.app, name="paper")


def _print_version(wanted: bool) -> None:
    if wanted:
        from fldet import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def fldet(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """RetinaNet and the focal loss: train, test, look at the pictures."""


def main() -> None:
    """Runs the command line with the arguments of the process.

    Threads of torch that wait for each other do so asleep: spinning, they slow down loader
    processes on the same cores, and a training on a busy CPU loses more than half its speed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.argv[1:] = expand_lists(sys.argv[1:])
    try:
        app()
    except SystemExit as stop:
        if "RANK" in os.environ and isinstance(stop.code, int):
            _leave_at_once(stop.code)
        raise


def _leave_at_once(code: int) -> NoReturn:
    """Ends one of several processes without the teardown of the interpreter.

    There, when all is done and written, the threads of gloo abort about one process in twenty
    (torch 2.13), and the launcher takes the whole run for failed.
    """
    import logging

    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def expand_lists(arguments: list[str]) -> list[str]:
    """Returns the arguments with an option of several values repeated before each of them.

    The ecosystem writes ``--cfg-options a=1 b=2``; Click wants the option once for each value. An
    option whose first value is of another kind stays as it is, for Click to complain.
    """
    takes = LISTS | (paper_run.LISTS if arguments[:2] == ["paper", "run"] else {})
    expanded: list[str] = []
    option = ""
    for argument in arguments:
        if argument in takes:
            option = argument
            expanded.append(option)
        elif option and not argument.startswith("-") and takes[option](argument):
            expanded += [argument] if expanded[-1] == option else [option, argument]
        else:
            option = ""
            expanded.append(argument)
    return expanded
