"""Reading COCO annotation files, with errors that name the file and the field."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from pathlib import Path, PureWindowsPath
from typing import Any

from fldet.errors import DataError, nearest, shorten
from fldet.files import MOST_OF_ANNOTATIONS, read_json, read_text
from fldet.numeric import is_real

LAYOUT = "a COCO file has the lists 'images', 'annotations' and 'categories', each entry its own id"
FIELDS = {"images": {"id"}, "annotations": set[str](), "categories": {"id", "name"}}
MOST_CATEGORIES = 20_000  # V3Det has 13,204
MOST_OF_NAME = 200  # characters in the name of a class

_TOLERANCE = 1.0  # pixels that a box may reach past the edge: files round
_FARTHEST = 2**31  # pixels: no image has such a place
_LARGEST_AREA = 1e10  # square pixels: COCO's figures leave out what is larger
_MOST_OF_PATH = 4096  # characters in a file_name
_FEW = 8  # lists called categories that are looked into before the whole file is
# Control characters, those that turn the direction of a line, halves of UTF-16 pairs.
_NO_LETTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FLAGS = {"": False, "0": False, "0.0": False, "false": False, "no": False}
_FLAGS |= {"1": True, "1.0": True, "true": True, "yes": True}


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry: its kind, the field, and the value that stands there."""

    kind: str
    field: str
    detail: str


def read_annotations(path: Path) -> dict[str, Any]:
    """Returns the content of a COCO annotation file.

    A file without the list of annotations, as COCO has them for its test images, gets an empty one.

    Raises:
        DataError: there is no such file, it is not JSON, or as ``checked_annotations``.
    """
    content = read_json(path, "annotation file", expected=LAYOUT)
    return checked_annotations(content, str(path))


def checked_annotations(content: Any, name: str) -> dict[str, Any]:
    """Returns the content of a COCO file, with its three lists; annotations are not looked at.

    Raises:
        DataError: a list is missing, an image has no id, or as ``category_ids``.
    """
    if isinstance(content, Mapping):
        content = {"annotations": [], **content}
    for key, fields in FIELDS.items():
        entries = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(entries, list):
            raise DataError(f"{name} has no list {key!r}", expected=LAYOUT)
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise DataError(f"{name}: {key}[{index}] is not an object", expected=LAYOUT)
            if missing := fields - entry.keys():
                raise DataError(f"{name}: {key}[{index}] has no {min(missing)!r}", expected=LAYOUT)
            if key == "images" and id_of(entry["id"]) is None:
                raise DataError(
                    f"{name}: an image has the id {shorten(entry['id'])}",
                    expected="a whole number or a text",
                )
    category_ids(content["categories"], name)
    return dict(content)


def images_by_id(images: Iterable[Mapping[str, Any]], name: Path | str) -> dict[Any, Any]:
    """Returns the entries of images by id, of which no two are the same: numbers, then texts."""
    by_id: dict[Any, Any] = {}
    for image in images:
        if (key := id_of(image["id"])) in by_id:
            raise DataError(
                f"{name}: two images have the id {shorten(image['id'])}",
                expected="every image has an id of its own, a whole number or a text",
            )
        by_id[key] = image
    return dict(sorted(by_id.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def read_class_names(path: Path) -> tuple[str, ...]:
    """Returns the class names of a COCO annotation file, in the order of their category ids.

    COCO's own training file has 450 MB, so the list of categories is looked for first and the
    whole file is parsed only where it cannot be found alone.
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

    Raises:
        DataError: an id is no whole number, a name no text that can be shown, two categories share
            an id or a name, or there are too many.
    """
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"{path} has {len(categories)} categories", expected=f"at most {MOST_CATEGORIES}"
        )
    for category in categories:
        if not isinstance(id_of(category["id"]), int):
            raise DataError(
                f"{path}: the id of a category is no whole number: {shorten(category)}",
                expected="its id is a number, 1 and not '1', and its name a text",
                hint="the category_id of each annotation has to be the same number",
            )
        if fault := name_fault(category["name"]):
            raise DataError(
                f"{path}: the name of a category {fault}: {shorten(category['name'])}",
                expected=f"a text of 1 to {MOST_OF_NAME} characters, none of them a control "
                "character",
            )
    counts = Counter(category["name"] for category in categories)
    groups = group_ids(categories)
    categories = [c for c in categories if counts[c["name"]] == 1 or c["id"] not in groups]
    ordered = sorted((int(c["id"]), c["name"]) for c in categories)
    by_name = {name: number for number, name in ordered}
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


def name_fault(name: Any) -> str:
    """Returns why a class cannot be called so, empty if it can."""
    if not isinstance(name, str):
        return "is no text"
    if not name.strip():
        return "is empty"
    if len(name) > MOST_OF_NAME:
        return f"has {len(name)} characters"
    return "has characters that cannot be shown" if _NO_LETTERS.search(name) else ""


def id_of(value: Any) -> int | str | None:
    """Returns the id that a value stands for: a whole number (1.0 is 1) or a text; None for others.

    Of images. That of a category is never a text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value) if abs(int(value)) < 2**63 else None
    return None


def flag_of(value: Any) -> bool | None:
    """Returns what ``iscrowd``, ``ignore`` or ``difficult`` says; None if that is not clear.

    Absent (None) is no. Numbers are 0 and 1; texts are those, true and false, yes and no.
    """
    if value is None:
        return False
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return bool(value) if isinstance(value, Real) and value in (0, 1) else None


def image_faults(image: Mapping[str, Any]) -> Iterator[Fault]:
    """Yields what is wrong with the entry of an image, its id aside; looks at no file."""
    for side in ("width", "height"):
        value = image.get(side)
        if value is None:
            yield Fault(f"image without {side}", side, "missing")
        elif not (is_real(value) and 0 < value < _FARTHEST and value == int(value)):
            yield Fault("impossible image size", side, shorten(value))
    if image.get("file_name") is None:
        yield Fault("image without file_name", "file_name", "missing")
    elif fault := _name_fault(image["file_name"]):
        yield Fault(fault, "file_name", shorten(image["file_name"]))


def stated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns (width, height) in pixels as the entry of an image has them; None if it has not."""
    if any(fault.field in ("width", "height") for fault in image_faults(image)):
        return None
    return int(image["width"]), int(image["height"])


def image_path(folder: Path, name: Any, entry: str) -> Path:
    """Returns the path of an image file, whose entry has the ``file_name`` that is given.

    Backslashes stand between folders, as Windows has it, unless there is a file of that very name.

    Raises:
        DataError: the name leads out of the folder, or is none; names the ``entry``.
    """
    if fault := _name_fault(name):
        raise DataError(
            f"{entry}: {fault}: {shorten(name)}",
            expected=f"a name below {folder}, without '..'",
            hint="another folder of images is set with data_prefix.img of the data set",
        )
    path = folder / name
    if "\\" in name and not os.path.exists(path):
        return folder / name.replace("\\", "/")
    return path


def has_image(folder: Path, name: Any) -> bool:
    """Returns whether a ``file_name`` leads to a file below a folder."""
    try:
        return os.path.isfile(image_path(folder, name, ""))
    except DataError:
        return False


def _name_fault(name: Any) -> str:
    """Returns what is wrong with a ``file_name``, empty if nothing is.

    Every ``..`` is refused: behind a symbolic link it leads elsewhere than it seems to.
    """
    if not isinstance(name, str) or not name.strip("./\\ ") or "\0" in name:
        return "file_name that names no file"
    if len(name) > _MOST_OF_PATH:
        return "file_name that names no file"
    windows = PureWindowsPath(name)
    if windows.root or Path(name).drive or ".." in windows.parts:
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

    ``sizes`` are (width, height) in pixels by image id, None where that is not known; ``names`` are
    those of classes by category id, and None leaves the category unchecked.
    """
    box = box_of(entry)
    fault = "no box of four numbers" if box is None else _box_fault(box)
    if fault:
        yield Fault(fault, "bbox", shorten(entry.get("bbox")))
    category, image = id_of(entry.get("category_id")), id_of(entry.get("image_id"))
    if names is not None and category not in names:
        yield Fault("unknown category", "category_id", shorten(entry.get("category_id")))
    for key in ("iscrowd", "ignore"):
        if flag_of(entry.get(key)) is None:
            yield Fault(f"{key} that is neither 0 nor 1", key, shorten(entry[key]))
    if image not in sizes:
        yield Fault("unknown image", "image_id", shorten(entry.get("image_id")))
    elif box is not None and not fault and (fault := _place_fault(box, sizes[image])):
        size = sizes[image]
        where = f", image {size[0]:g} x {size[1]:g}" if size else ""
        yield Fault(fault, "bbox", f"{shorten(entry['bbox'])}{where}")
    if area_of(entry, box) is None:
        yield Fault("area that is no size", "area", shorten(entry.get("area")))


def box_of(entry: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Returns (x, y, width, height) in pixels, finite or not; None if it is not four numbers."""
    box = entry.get("bbox")
    if not (isinstance(box, (list, tuple)) and len(box) == 4 and all(map(is_real, box))):
        return None
    try:
        return tuple(map(float, box))
    except OverflowError:  # a whole number of hundreds of digits
        return None


def missing_classes(
    classes: Sequence[str], id_by_name: Mapping[str, int], source: Path | str
) -> list[str]:
    """Returns the classes that no category is called like; a file may list only what it has.

    Raises:
        DataError: one looks like a slip of the pen, or all are missing.
    """
    missing = [name for name in classes if name not in id_by_name]
    others = id_by_name.keys() - set(classes)
    for name in missing:
        close = nearest(name, others)
        if close or len(missing) == len(classes):
            raise DataError(
                f"class {shorten(name)} is not in {source}",
                expected=close or f"one of: {', '.join([*id_by_name][:20])}",
                hint="leave 'classes' out of the config to use all classes of the file",
            )
    return missing


def is_usable(box: tuple[float, ...], width: float, height: float) -> bool:
    """Returns whether a box (xywh, pixels) is finite, a pixel wide, not all outside an image."""
    x, y, w, h = box
    inside = min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)
    return inside and w >= 1 and h >= 1 and all(abs(value) < _FARTHEST for value in box)


def area_of(entry: Mapping[str, Any], box: tuple[float, ...] | None) -> float | None:
    """Returns the area in square pixels, the box's where none is given; None if it is none."""
    area = entry.get("area")
    if area is None:
        return math.prod(box[2:]) if box else 0.0
    if not (is_real(area) and 0 <= area <= _LARGEST_AREA):
        return None
    return float(area)


def _box_fault(box: tuple[float, ...]) -> str:
    if not all(abs(value) < _FARTHEST for value in box):  # NaN is not either
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


def _find_categories(text: str) -> list[dict[str, Any]] | None:
    """Returns the list behind the key "categories" if exactly one stands there whole, else None."""
    places = [*islice(re.finditer(r'"categories"\s*:\s*(?=\[)', text), _FEW + 1)]
    lists = []
    for place in places if len(places) <= _FEW else ():
        try:
            value, _ = json.JSONDecoder().raw_decode(text, place.end())
        except (ValueError, RecursionError):
            continue
        if value and all(isinstance(c, dict) and {"id", "name"} <= c.keys() for c in value):
            lists.append(value)
    return lists[0] if len(lists) == 1 else None
