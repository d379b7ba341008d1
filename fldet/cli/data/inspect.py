"""``fldet data inspect``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note

if TYPE_CHECKING:
    from fldet.data.formats import FoundData

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
    from fldet.data.formats import recognise

    found = recognise(path, images)
    result = look_into(found)
    Output("data inspect", as_json=json).result(result, text=lambda: describe(result))


def look_into(found: "FoundData") -> dict[str, Any]:
    """Returns format, root, classes, notes, and the summary of each split."""
    from fldet.analysis.dataset.summary import summarize_content
    from fldet.data.formats import oddities, used_classes

    contents = {split: found.read(split) for split in found.splits}
    classes, groups = used_classes(contents.values())
    notes = [
        *oddities(found, contents),
        *(f"{name!r} only groups other classes" for name in groups),
    ]
    return {
        "format": found.format,
        "root": found.root,
        "classes": classes,
        "notes": notes,
        "splits": {
            split: summarize_content(
                contents[split], found.splits[split]["ann_file"], found.image_folder(split)
            )
            for split in contents
        },
    }


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
