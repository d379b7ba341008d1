"""KITTI's text files, one for each image: label_2/000000.txt."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fldet.data.folders import text_lines
from fldet.data.imported.labelled import LabelledImage, LeftOut, Shape, files_of, numbers
from fldet.errors import DataError, collect, shorten

ROW = (
    "a line is 'type truncated occluded alpha left top right bottom', then seven numbers of the "
    "place in space"
)
ANYTHING = "DontCare"  # regions in which nothing is labelled


def read(path: Path, faults: list[DataError] | None, left_out: LeftOut) -> Iterator[LabelledImage]:
    """Yields the images of a folder of labels; a region to pass over has the label ``DontCare``."""
    del left_out
    images = [*collect(_image, files_of(path, [".txt"]), faults)]
    names = {one.label for image in images for one in image.shapes} - {ANYTHING}
    yield from map(partial(_for_each_class, names=sorted(names)), images)


def _image(file: Path) -> LabelledImage:
    shapes = []
    for number, line in enumerate(text_lines(file, "label file", expected=ROW), start=1):
        where, row = f"{file}:{number}", line.split()
        if not row:
            continue
        if len(row) not in (8, 15, 16):
            raise DataError(f"{where}: {len(row)} values: {shorten(line)}", expected=ROW)
        x1, y1, x2, y2 = numbers(row[4:8], 4, where, "left, top, right, bottom")
        shapes.append(Shape(row[0], (x1, y1, x2, y2), ignored=row[0] == ANYTHING))
    return LabelledImage(f"{file.stem}.png", shapes, where=str(file))


def _for_each_class(image: LabelledImage, names: list[str]) -> LabelledImage:
    """Returns an image whose unlabelled regions are passed over by every class."""
    shapes = [one for one in image.shapes if not one.ignored]
    regions = [one.corners for one in image.shapes if one.ignored]
    shapes += [Shape(name, corners, ignored=True) for corners in regions for name in names]
    return LabelledImage(image.name, shapes, where=image.where)
