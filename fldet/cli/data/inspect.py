"""``fldet data inspect``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.analysis.dataset.inspect import look_into
from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    pass

Data = Annotated[
    Path,
    typer.Argument(
        help="Folder of a data set, or its .json or .yaml file.", metavar="PATH", show_default=False
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of the images, of COCO and VOC.", show_default="found"),
]

EXAMPLES = """\b
Examples:
  fldet data inspect FOLDER
  fldet data inspect FOLDER/annotations/train.json --images PICTURES --json
"""


@command
def inspect(path: Data, images: Images = None, json: options.Json = False) -> None:
    """Say what a data set is and what is in it.

    Format, splits, images, boxes, classes and oddities.
    """
    note(f"fldet data inspect {path}")
    import fldet.engine  # noqa: F401  first: MMDetection with operators that mmcv may lack
    from fldet.data.formats.recognise import recognise

    found = recognise(path, images)
    result = look_into(found)
    Output("data inspect", as_json=json).result(result, text=lambda: describe(result))


def describe(result: dict[str, Any]) -> str:
    """Returns what ``look_into`` found as text."""
    lines = [
        f"{'format':16}{result['format']}",
        f"{'root':16}{result['root']}",
        f"{'splits':16}{', '.join(result['splits'])}",
        *(f"{'note':16}{text}" for text in result["notes"]),
    ]
    for split, summary in result["splits"].items():
        lines += ["", f"{split}:", str(summary)]
    return "\n".join(lines)
