"""``fldet analyze box-sizes``."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command
from fldet.text import table

HEADER = ("file", "boxes", "p5", "median", "p95")
EXAMPLES = """
  fldet analyze box-sizes annotations/train.json annotations/val.json
  fldet analyze box-sizes annotations/train.json --json
"""


@command
def box_sizes(
    files: Annotated[
        list[Path],
        typer.Argument(help="Annotation files in COCO format.", metavar="FILE", show_default=False),
    ],
    json: options.Json = False,
) -> None:
    """Print how large the boxes of one or several files are: sqrt(width x height), in pixels.

    Two files of one data set should agree; where they don't, training sees other boxes than
    the test. Boxes without an area and crowd regions are left out.
    """
    rows = [sizes_of(path) for path in files]
    cells = [tuple(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    Output("analyze box-sizes", as_json=json).result(
        [dict(zip(HEADER, row, strict=True)) for row in rows], text=lambda: table(HEADER, cells)
    )


def sizes_of(path: Path) -> tuple[Any, ...]:
    """Returns name, number of boxes, and 5th, 50th and 95th percentile of their sizes, in pixels.

    Raises:
        fldet.errors.DataError: no COCO file, or no box in it.
    """
    import numpy as np

    from fldet.data.annotations import box_of, read_annotations
    from fldet.errors import DataError

    entries = [one for one in read_annotations(path)["annotations"] if not one.get("iscrowd")]
    boxes = filter(None, map(box_of, entries))
    sizes = [(w * h) ** 0.5 for _, _, w, h in boxes if w > 0 and h > 0 and w * h < math.inf]
    if not sizes:
        raise DataError(f"{path} has no box with an area")
    return (str(path), len(sizes), *map(float, np.percentile(sizes, [5, 50, 95])))
