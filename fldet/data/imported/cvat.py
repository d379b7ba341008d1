"""CVAT's own XML, 'CVAT for images 1.1'."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from fldet.data.imported.labelled import (
    Corners,
    LabelledImage,
    LeftOut,
    Shape,
    around,
    centre,
    ellipse,
    label_of,
    numbers,
    stated_size,
    turned,
)
from fldet.data.markup import read_xml
from fldet.errors import DataError, collect
from fldet.files import GIB

LAYOUT = "'CVAT for images 1.1': <annotations> with <image name=... width=... height=...>"
KEYS = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
}


def read(path: Path, faults: list[DataError] | None, left_out: LeftOut) -> Iterator[LabelledImage]:
    """Yields the images of an export; masks, polygons and ellipses become the boxes around them."""
    root = read_xml(path, expected=LAYOUT, most=GIB)
    if root.tag != "annotations" or root.find("track") is not None:
        video = root.find("track") is not None
        raise DataError(
            f"{path} is {'of a video' if video else f'a {root.tag}'}",
            expected=LAYOUT,
            hint="export it from CVAT as 'CVAT for images 1.1', with the images" * video,
        )
    yield from collect(partial(_image, path=path, left_out=left_out), root.iter("image"), faults)


def classes(path: Path) -> list[str]:
    """Returns the labels that the export lists, in their order; none in old exports."""
    root = read_xml(path, expected=LAYOUT, most=GIB)
    return [name.strip() for one in root.iter("label") if (name := one.findtext("name"))]


def _image(node: ElementTree.Element, path: Path, left_out: LeftOut) -> LabelledImage:
    name = node.get("name") or ""
    where = f"{path}: image {name or node.get('id')}"
    if not name:
        raise DataError(f"{where} has no name", expected=LAYOUT)
    shapes = []
    for shape in node:
        if shape.tag in (*KEYS, "polygon"):
            label = label_of(shape.get("label"), where)
            shapes.append(Shape(label, _corners(shape, where)))
        else:
            left_out.add(shape.tag)
    size = stated_size(node.get("width"), node.get("height"))
    return LabelledImage(name, shapes, size, where)


def _corners(shape: ElementTree.Element, where: str) -> Corners:
    if shape.tag == "polygon":
        pairs = (shape.get("points") or "").replace(";", ",").split(",")
        return around(numbers(pairs, 0, where, "points of a polygon"))
    keys = KEYS[shape.tag]
    a, b, c, d = numbers(map(shape.get, keys), 4, where, f"{', '.join(keys)} of a {shape.tag}")
    (angle,) = numbers([shape.get("rotation") or 0], 1, where, "rotation")
    if shape.tag == "ellipse":
        return ellipse(a, b, c, d, angle)
    if shape.tag == "mask":
        return a, b, a + c, b + d
    return turned((a, b, c, d), angle, centre((a, b, c, d))) if angle else (a, b, c, d)
