"""``fldet data split``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.data.inspect import Data, Images
from fldet.cli.output import Output, command, note
from fldet.cli.printed import DataDivided
from fldet.text import table

if TYPE_CHECKING:
    from fldet.data.folds.split import Division

EXAMPLES = r"""
  fldet data split FOLDER --folds 3 --stratify
  fldet data split FOLDER --group-by '^([^_]+)_' --out folds_by_patient
"""

Folds = Annotated[int, typer.Option(min=2, help="Number of folds.")]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN|FIELD",
        help="Keep images together that are equal in this: a regular expression that is looked for "
        "in the file names, or a field of the images in a COCO file. Near copies stay together "
        "anyway.",
    ),
]
Stratify = Annotated[
    bool, typer.Option("--stratify", help="Balance the boxes of each class over the folds.")
]


@command
def split(
    path: Data,
    folds: Folds = 5,
    group_by: GroupBy = None,
    stratify: Stratify = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the division into folds.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the lists.", show_default="beside the data, NAME_folds"),
    ] = None,
    images: Images = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Divide the training images into folds: lists of file names.

    For fldet train --fold and fldet cross-validate; no image is copied.
    """
    note(f"fldet data split {path}")
    from fldet.files import require_data

    require_data(path)
    import fldet.engine  # noqa: F401  first: MMDetection as it works here
    from fldet.data.folds.split import SplitOptions, split_data

    chosen = SplitOptions(folds, group_by or "", stratify, seed)
    done = split_data(path, chosen, out, images)
    Output("data split", as_json=json, quiet=quiet).result(
        DataDivided(done.folder, done.division.folds, done.division.images, done.division.boxes),
        text=lambda: f"{division_text(done.division)}\nfolds  {done.folder}",
        essential=done.folder,
    )


def division_text(division: "Division") -> str:
    """Returns images and boxes of each class by fold as a table."""
    header = ("", *(f"fold {number}" for number in division.folds.numbers), "all")
    rows = [("images", division.images), *division.boxes.items()]
    cells = [(name, *map(str, counts), str(sum(counts))) for name, counts in rows]
    folds = division.folds
    apart = f", in {folds.groups} groups that stay together" if folds.groups < folds.images else ""
    return f"{table(header, cells)}\n{folds.images} images{apart}"
