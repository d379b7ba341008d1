"""``fldet data inspect``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.analysis.dataset.inspect import DataInspection

Data = Annotated[
    Path, typer.Argument(help="Folder of a data set, or its annotation file.", metavar="PATH")
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the images, of all but YOLO.", show_default="found")
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="'KEY=NAME ...'",
        help="Names of the columns of a CSV: image, label, and xmin, ymin, xmax, ymax or left, "
        "top, width, height.",
        show_default="found",
    ),
]

EXAMPLES = """
  fldet data inspect FOLDER
  fldet data inspect FOLDER --copies
  fldet data inspect FOLDER/annotations/train.json --images PICTURES --json
"""


@command
def inspect(
    path: Data,
    images: Images = None,
    columns: Columns = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Read all images, and look for near copies among them.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Say what a data set is and what is in it.

    Format, splits, images, boxes, classes, and what is odd or doubtful.
    """
    note(f"fldet data inspect {path}")
    from fldet.files import require_data

    require_data(path)
    from fldet.analysis.dataset.inspect import inspect_data

    result = inspect_data(path, images, columns, copies=copies)
    Output("data inspect", as_json=json).result(result, text=lambda: inspection_text(result))


def inspection_text(result: "DataInspection") -> str:
    """Returns what ``inspect_data`` found as text."""
    lines = [
        f"{'format':16}{result.format}",
        f"{'root':16}{result.root}",
        f"{'splits':16}{', '.join(result.splits)}",
        *(f"{'note':16}{text}" for text in result.notes),
    ]
    for split, summary in result.splits.items():
        lines += ["", f"{split}:", str(summary)]
    return "\n".join(lines)
