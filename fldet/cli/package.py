"""``fldet package``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, loading

if TYPE_CHECKING:
    from fldet.package import Packaged

EXAMPLES = """
  fldet package work_dirs/mine --licence CC-BY-4.0
  fldet package work_dirs/mine --name 'Blood cells' --folds work_dirs/mine_folds
  fldet package best.pth --out handed_on --thresholds thresholds.json
"""


@command
def package(
    checkpoint: options.Checkpoint,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder to write.", show_default="package in the work dir"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Title of the card.", show_default="that of the work dir")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the model, by its SPDX name.", show_default="not stated"),
    ] = None,
    folds: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDS_DIR",
            help="Folder of fldet cross-validate with the same config: the card gets mean and "
            "spread.",
        ),
    ] = None,
    other_seed: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="WORK_DIR",
            help="Tested work dir of the same config with another seed, for the spread; may be "
            "repeated.",
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            help="Lowest score of each class, a file of fldet analyze thresholds.",
            show_default="thresholds.json in WORK_DIR or WORK_DIR/thresholds, if there is one",
        ),
    ] = None,
    speed: Annotated[
        Path | None,
        typer.Option(
            help="JSON of fldet benchmark predict --out.",
            show_default="speed.json in WORK_DIR, if there is one",
        ),
    ] = None,
    config: options.ConfigOfCheckpoint = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as a folder for others: weights, config, thresholds, and a card.

    The folder is taken wherever a checkpoint is. No path of this machine is in it. Its config is
    read as data and never run.
    """
    with loading(f"package {checkpoint}"):
        from fldet.package import write_package
        from fldet.package.facts import Sources

    done = write_package(
        checkpoint,
        out=out,
        name=name,
        licence=licence,
        sources=Sources(folds, tuple(other_seed or ()), thresholds, speed),
        config=config,
    )
    Output("package", as_json=json, quiet=quiet).result(
        done, text=lambda: package_text(done), essential=done.folder
    )


def package_text(done: "Packaged") -> str:
    """Returns what the card cannot say, and the files."""
    lines = [*done.gaps, *map(str, done.files)]
    lines.append("to be filled in by you: the section Intended use of the card")
    return "\n".join(lines)
