"""Reading COCO annotation files, with errors that name the file and the field."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.errors import DataError, shorten
from fldet.reading import MOST_OF_ANNOTATIONS, read_json, read_text

LAYOUT = "a COCO file has the lists 'images', 'annotations' and 'categories', each entry its own id"
FIELDS = {"images": {"id"}, "annotations": set[str](), "categories": {"id", "name"}}

_TOLERANCE = 1.0  # pixels that a box may reach past the edge: files round


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry: its kind, the field, and the value that stands there."""

    kind: str
    field: str
    detail: str


def read_annotations(path: Path) -> dict[str, Any]:
    """Returns the content of a COCO annotation file.

    Raises:
        DataError: there is no such file, it is not JSON, one of the three lists is missing, an
            image has no id, or a category no id or name.
    """
    content = read_json(path, "annotation file", expected=LAYOUT)
    check_annotations(content, str(path))
    return dict(content)


def check_annotations(content: Any, name: str) -> None:
    """Does nothing if ``content`` has the three lists of a COCO file; annotations are not read.

    Args:
        content: of an annotation file.
        name: of the file, for messages.

    Raises:
        DataError: a list is missing, an image has no id, or a category no id or name.
    """
    for key, fields in FIELDS.items():
        entries = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(entries, list):
            raise DataError(f"{name} has no list {key!r}", expected=LAYOUT)
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise DataError(f"{name}: {key}[{index}] is not an object", expected=LAYOUT)
            if missing := fields - entry.keys():
                raise DataError(f"{name}: {key}[{index}] has no {min(missing)!r}", expected=LAYOUT)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Returns the class names of a COCO annotation file, in the order of their category ids.

    COCO's own training file has 450 MB, so the list of categories is looked for first and the
    whole file is parsed only where it cannot be found alone.

    Raises:
        DataError: as ``read_annotations``; or two categories share an id or a name.
    """
    categories = _find_categories(
        read_text(path, "annotation file", expected=LAYOUT, most=MOST_OF_ANNOTATIONS)
    )
    if categories is None:
        categories = read_annotations(path)["categories"]
    return tuple(category_ids(categories, path))


def category_ids(categories: list[dict[str, Any]], path: Path | str) -> dict[str, int]:
    """Returns category ids by class name, in the order of the ids.

    Of two of one name, the one that groups others is no class.

    Args:
        categories: the list of that name; ids may have gaps.
        path: the file it is from, for messages.

    Raises:
        DataError: two categories share an id or a name.
    """
    for category in categories:
        if not (is_id(category["id"]) and isinstance(category["name"], str)):
            raise DataError(
                f"{path}: a category is {shorten(category)}",
                expected="its id is a number and its name a text",
            )
    counts = Counter(category["name"] for category in categories)
    groups = group_ids(categories)
    categories = [c for c in categories if counts[c["name"]] == 1 or c["id"] not in groups]
    ordered = sorted(categories, key=lambda c: (isinstance(c["id"], str), c["id"]))
    by_name = {c["name"]: c["id"] for c in ordered}
    if len(by_name) < len(categories) or len(set(by_name.values())) < len(categories):
        raise DataError(
            f"{path}: two categories have the same id or name",
            expected="each category has its own id and name",
        )
    return by_name


def group_ids(categories: list[dict[str, Any]]) -> set[Any]:
    """Returns the ids of categories that others name as their ``supercategory``; with none itself.

    Roboflow puts such a one before the others; it is a class only where it has boxes.
    """
    named = {shorten(one.get("supercategory")) for one in categories}
    return {
        one["id"]
        for one in categories
        if one.get("supercategory") in ("none", "", None) and shorten(one["name"]) in named
    }


def is_id(value: Any) -> bool:
    """Returns whether a value can be the id of an entry: a whole number or a text."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def image_faults(image: Mapping[str, Any]) -> Iterator[Fault]:
    """Yields what is wrong with the entry of an image, its id aside; looks at no file."""
    for side in ("width", "height"):
        value = image.get(side)
        if value is None:
            yield Fault(f"image without {side}", side, "missing")
        elif not (_is_number(value) and 0 < value < math.inf):
            yield Fault("impossible image size", side, shorten(value))
    if image.get("file_name") is None:
        yield Fault("image without file_name", "file_name", "missing")
    elif fault := _name_fault(image["file_name"]):
        yield Fault(fault, "file_name", shorten(image["file_name"]))


def image_path(folder: Path, name: Any, entry: str) -> Path:
    """Returns the path of an image file.

    Args:
        folder: the root of the images.
        name: ``file_name`` of the image's entry.
        entry: file and entry, for messages.

    Raises:
        DataError: the name leads out of the folder, or is none.
    """
    if fault := _name_fault(name):
        raise DataError(
            f"{entry}: {fault}: {shorten(name)}",
            expected=f"a name below {folder}, without '..'",
            hint="another folder of images is set with data_prefix.img of the data set",
        )
    return folder / name


def _name_fault(name: Any) -> str:
    """Returns what is wrong with a ``file_name``, empty if nothing is.

    Every ``..`` is refused: behind a symbolic link it leads elsewhere than it seems to.
    """
    if not isinstance(name, str) or not name.strip("./ ") or "\0" in name:
        return "file_name that names no file"
    if name.startswith(("/", "\\")) or Path(name).drive or ".." in Path(name).parts:
        return "file_name that leaves the image folder"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "file_name that names no file"
    return ""


def annotation_faults(
    entry: Mapping[str, Any],
    sizes: Mapping[Any, tuple[float, float] | None],
    names: Mapping[Any, str] | None,
) -> Iterator[Fault]:
    """Yields what is wrong with an annotation, the worst first.

    Args:
        entry: of the list ``annotations``.
        sizes: (width, height) in pixels by image id, None where it is not known.
        names: class name by category id; None leaves the category unchecked.
    """
    box = box_of(entry)
    fault = "no box of four numbers" if box is None else _box_fault(box)
    if fault:
        yield Fault(fault, "bbox", shorten(entry.get("bbox")))
    category, image = entry.get("category_id"), entry.get("image_id")
    if names is not None and not (is_id(category) and category in names):
        yield Fault("unknown category", "category_id", shorten(category))
    if not (is_id(image) and image in sizes):
        yield Fault("unknown image", "image_id", shorten(image))
    elif box is not None and not fault and (fault := _place_fault(box, sizes[image])):
        size = sizes[image]
        where = f", image {size[0]:g} x {size[1]:g}" if size else ""
        yield Fault(fault, "bbox", f"{shorten(entry['bbox'])}{where}")


def box_of(entry: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Returns (x, y, width, height) in pixels, finite or not; None if it is not four numbers."""
    box = entry.get("bbox")
    if not (isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_number, box))):
        return None
    try:
        return tuple(map(float, box))
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _box_fault(box: tuple[float, ...]) -> str:
    if not all(map(math.isfinite, box)):
        return "box not finite"
    if min(box[2:]) < 0:
        return "box of negative size"
    return "box of zero size" if min(box[2:]) == 0 else ""


def _place_fault(box: tuple[float, ...], size: tuple[float, float] | None) -> str:
    x, y, width, height = box
    if size is not None and (x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0):
        return "box outside the image"
    if size is not None and max(-x, -y, x + width - size[0], y + height - size[1]) > _TOLERANCE:
        return "box partly outside the image"
    return "box thinner than a pixel" if min(width, height) < 1 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _find_categories(text: str) -> list[dict[str, Any]] | None:
    """Returns the list behind the key "categories" if one stands there whole, else None."""
    for found in re.finditer(r'"categories"\s*:\s*(?=\[)', text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, found.end())
        except (ValueError, RecursionError):
            continue
        if value and all(isinstance(c, dict) and {"id", "name"} <= c.keys() for c in value):
            return value
    return None
