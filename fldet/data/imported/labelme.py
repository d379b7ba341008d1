"""The JSON files of labelme, one for each image."""

from collections.abc import Iterator, Mapping
from functools import partial
from math import hypot
from pathlib import Path
from typing import Any

from fldet.data.imported.labelled import (
    Corners,
    LabelledImage,
    LeftOut,
    Shape,
    around,
    ellipse,
    files_of,
    label_of,
    numbers,
    stated_size,
)
from fldet.errors import DataError, collect, shorten
from fldet.files import read_json

LAYOUT = "a JSON object with 'shapes', each with 'label', 'points' and 'shape_type'"
KINDS = ("rectangle", "polygon", "circle", "mask", "oriented_rectangle")


def read(path: Path, faults: list[DataError] | None, left_out: LeftOut) -> Iterator[LabelledImage]:
    """Yields the images of a folder; polygons, circles and masks become the boxes around them."""
    files = files_of(path, [".json"])
    yield from collect(partial(_image, left_out=left_out), files, faults)


def _image(file: Path, left_out: LeftOut) -> LabelledImage:
    content = read_json(file, "annotation file", expected=LAYOUT)
    shapes = content.get("shapes") if isinstance(content, Mapping) else None
    if not isinstance(shapes, list) or not all(isinstance(one, Mapping) for one in shapes):
        raise DataError(f"{file} has no list 'shapes'", expected=LAYOUT)
    found = []
    for number, shape in enumerate(shapes, start=1):
        where, kind = f"{file}: shape {number}", shape.get("shape_type") or "polygon"
        if kind in KINDS:
            label = label_of(shape.get("label"), where)
            found.append(Shape(label, _corners(kind, shape, where)))
        else:
            left_out.add(shorten(kind))
    name = str(content.get("imagePath") or "").replace("\\", "/").rpartition("/")[2]
    size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
    return LabelledImage(name or f"{file.stem}.jpg", found, size, str(file))


def _corners(kind: str, shape: Mapping[str, Any], where: str) -> Corners:
    pairs = shape.get("points")
    pairs = pairs if isinstance(pairs, list) else []
    points = [value for pair in pairs for value in (pair if isinstance(pair, list) else [None])]
    found = numbers(points, 4 if kind == "circle" else 0, where, f"points of a {kind}")
    if kind == "circle":  # the middle, and a point of the edge
        radius = hypot(found[2] - found[0], found[3] - found[1])
        return ellipse(found[0], found[1], radius, radius)
    return around(found)
