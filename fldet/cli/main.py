"""The command ``fldet``: wiring of its subcommands."""

import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Annotated, ClassVar, NoReturn

import typer

from fldet.cli.group import GroupOfModules
from fldet.streams import safe_streams

# Options that take several values, and which arguments are values of theirs.
LISTS: dict[str, Callable[[str], bool]] = {
    "--cfg-options": lambda argument: "=" in argument,
    "--cluster-options": lambda argument: "=" in argument,
    "--depths": str.isdigit,
    "--engines": str.isalnum,
    "--precisions": str.isalnum,
    "--scales": str.isdigit,
}


class RootGroup(GroupOfModules):
    """The commands of fldet, each a module of ``fldet.cli``, as its docstring begins."""

    summaries: ClassVar = {
        "init": "Write a config for a data set of your own, ready for fldet train.",
        "train": "Train the model of a config.",
        "test": "Test a model: COCO or VOC figures, AP of each class, pictures.",
        "cross-validate": (
            "Train without each fold of the images in turn, and test on it: mean and spread."
        ),
        "compare": "Train a few detectors alike, test and time them, and say which one to take.",
        "report": "Write one HTML page of a run: figures, curves, mistakes, and images to filter.",
        "predict": "Find objects in images or a video, with a checkpoint alone.",
        "export": "Write a model as ONNX or TorchScript, and compare it with the checkpoint.",
        "package": (
            "Write a model as a folder for others: weights, config, thresholds, and a card."
        ),
        "benchmark": (
            "Measure milliseconds: of an image, of a training step, by depth and scale, by engine."
        ),
        "doctor": "Print versions, operators and devices, and how to mend known troubles.",
        "plugins": (
            "Print the installed plug-ins, what is wrong with them, and all names for configs."
        ),
        "analyze": "Look at data and results.",
        "config": "Look at configs.",
        "data": "Look at, check, convert and divide data sets.",
        "paper": "The paper's tables: every row is a config.",
    }


app = typer.Typer(
    name="fldet",
    cls=RootGroup,
    help="RetinaNet and the focal loss: train, test, look at the pictures.",
    epilog="Start with: fldet train configs/shapes/retinanet_r18_shapes.py",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Runs the command line with the arguments of the process."""
    set_torch_variables(os.environ)
    sys.argv[1:] = expand_lists(sys.argv[1:])
    with safe_streams():
        try:
            app()
        except SystemExit as stop:
            if "RANK" in os.environ and isinstance(stop.code, int):
                _leave_at_once(stop.code)
            raise


def set_torch_variables(variables: MutableMapping[str, str]) -> None:
    """Sets what torch reads from the environment when it is imported, where a user has not.

    Threads of torch that wait for each other stay awake for a moment, tens of microseconds, and
    then sleep. By torch's own default, hundreds of times as long, they slow down all else on the
    same cores, and a training beside another one loses more than half its speed.
    """
    if not any(name in variables for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        variables.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="2000")


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
    takes = LISTS
    if arguments[:2] == ["paper", "run"]:
        from fldet.cli.paper import run as paper_run

        takes = takes | paper_run.LISTS
    elif arguments[:1] == ["compare"]:
        from fldet.cli import compare

        takes = takes | compare.LISTS
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
