"""A table of boxes (CSV): a line for each box, with the columns found by their names."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fldet.data.image_files import IMAGE_ENDINGS
from fldet.data.imported.labelled import LabelledImage, LeftOut, Shape, label_of, numbers
from fldet.errors import DataError, UsageError, collect, nearest, shorten
from fldet.files import GIB, read_text

# Names of columns, without what is no letter or digit; the first that is there is taken.
IMAGE = (
    *("image", "filename", "imagename", "imagepath", "path", "imagefile", "filepath", "file"),
    *("img", "imgpath", "imageid", "frame"),
)
LABEL = ("label", "class", "classname", "labelname", "category", "categoryname", "name", "object")
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
    ("bboxx1", "bboxy1", "bboxx2", "bboxy2"),
)
SIDES = (
    ("left", "top", "width", "height"),
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("bboxleft", "bboxtop", "bboxwidth", "bboxheight"),
    ("xmin", "ymin", "width", "height"),
)
KEYS = ("image", "label", *CORNERS[0], "left", "top", "width", "height")
LAYOUT = (
    "a line with the names of the columns: of the image, of the label, and xmin, ymin, xmax, ymax "
    "or left, top, width, height in pixels"
)
HINT = (
    "--columns 'image=NAME label=NAME xmin=NAME ymin=NAME xmax=NAME ymax=NAME' says which is which"
)


@dataclass(frozen=True)
class Columns:
    """Which column has what, counted from 0."""

    image: int
    label: int
    box: tuple[int, ...]  # four
    has_sides: bool  # whether the last two are width and height


def parse_columns(text: str) -> dict[str, str]:
    """Returns the names of columns by what they have, of ``image=file xmin=left ...``; or none.

    Raises:
        UsageError: something else than these pairs.
    """
    parts = re.split(r"[\s,]+(?=\w+=)", text.strip()) if text.strip() else []
    pairs = [part.partition("=") for part in parts]
    found = {key: name.strip() for key, _, name in pairs}
    for key, name in found.items():
        if key not in KEYS or not name:
            raise UsageError(
                f"--columns {shorten(text)}",
                expected=nearest(key, KEYS) or f"NAME of a column for each of {', '.join(KEYS)}",
            )
    return found


def read(
    path: Path,
    faults: list[DataError] | None,
    left_out: LeftOut,
    columns: Mapping[str, str] | None = None,
) -> Iterator[LabelledImage]:
    """Yields the images of a table in the order of their first lines.

    A line whose box is empty is an image without objects. Without a line of names the columns are
    those of keras-retinanet: image, x1, y1, x2, y2, label.
    """
    del left_out
    text = read_text(path, "annotation file", expected=LAYOUT, most=GIB)
    rows = [*csv.reader(io.StringIO(text), delimiter=_delimiter(text))]
    where = _columns(rows[0] if rows else [], columns or {}, path)
    shapes: dict[str, list[Shape]] = {}
    body = enumerate(rows[where is not HEADLESS :], start=1 + (where is not HEADLESS))

    def add(item: tuple[int, Sequence[str]]) -> None:
        number, row = item
        if any(map(str.strip, row)):
            name, shape = _line(row, where, f"{path}:{number}")
            shapes.setdefault(name, []).extend([shape] if shape else [])

    for _ in collect(add, body, faults):
        pass
    for name, found in shapes.items():
        yield LabelledImage(name, found, where=f"{path}: {name}")


HEADLESS = Columns(0, 5, (1, 2, 3, 4), has_sides=False)


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _columns(head: Sequence[str], given: Mapping[str, str], path: Path) -> Columns:
    """Returns the columns that are given, others by their names.

    Raises:
        DataError: there are none of some kind.
    """
    names = [_plain(name) for name in head]
    for name in given.values():
        if name not in head:
            raise DataError(
                f"{path} has no column {name!r}",
                expected=nearest(name, head) or f"one of {shorten([*head])}",
            )
    places = {key: head.index(name) for key, name in given.items()}
    is_headless = len(head) == 6 and head[0].lower().endswith(IMAGE_ENDINGS)
    if not given and is_headless:
        return HEADLESS
    for keys, has_sides in ((CORNERS[0], False), (SIDES[0], True)):
        if all(key in places for key in keys):
            boxes = [(tuple(places[key] for key in keys), has_sides)]
            break
    else:
        kinds = [*((keys, False) for keys in CORNERS), *((keys, True) for keys in SIDES)]
        boxes = [
            (tuple(names.index(key) for key in keys), has_sides)
            for keys, has_sides in kinds
            if all(key in names for key in keys)
        ]
    image = places.get("image", next((names.index(one) for one in IMAGE if one in names), None))
    label = places.get("label", next((names.index(one) for one in LABEL if one in names), None))
    missing = [
        what
        for what, found in (("the image", image), ("the label", label), ("the box", boxes or None))
        if found is None
    ]
    if missing or image is None or label is None:
        raise DataError(
            f"{path}: no column is known to have {' and '.join(missing)}, of {shorten([*head])}",
            expected=LAYOUT,
            hint=HINT,
        )
    return Columns(image, label, *boxes[0])


def _line(row: Sequence[str], columns: Columns, where: str) -> tuple[str, Shape | None]:
    """Returns the image of a line and its box, None if it has none."""
    if max(columns.image, columns.label, *columns.box) >= len(row):
        raise DataError(f"{where}: {len(row)} values: {shorten([*row])}", expected=LAYOUT)
    name = row[columns.image].strip().replace("\\", "/")
    if not name:
        raise DataError(f"{where} names no image", expected=LAYOUT)
    values = [row[index].strip() for index in columns.box]
    if not any(values):
        return name, None
    a, b, c, d = numbers(values, 4, where, "the box")
    corners = (a, b, a + c, b + d) if columns.has_sides else (a, b, c, d)
    return name, Shape(label_of(row[columns.label], where), corners)
