"""Reading COCO annotation files, with errors that name the file and the field."""

import json
import re
from pathlib import Path
from typing import Any

from fldet.errors import DataError

LAYOUT = "a COCO file has the lists 'images', 'annotations' and 'categories'"


def read_annotations(path: Path) -> dict[str, Any]:
    """Returns the content of a COCO annotation file.

    Raises:
        DataError: there is no such file, it is not JSON, or one of the three lists is missing.
    """
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            expected=LAYOUT,
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not an object", expected=LAYOUT)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list '{key}'", expected=LAYOUT)
    return content


def read_class_names(path: Path) -> tuple[str, ...]:
    """Returns the class names of a COCO annotation file, in the order of their category ids.

    COCO's own training file has 450 MB, so the list of categories is looked for first and the
    whole file is parsed only where it cannot be found alone.

    Raises:
        DataError: as ``read_annotations``; or two categories share an id or a name.
    """
    categories = _find_categories(_read_text(path))
    if categories is None:
        categories = read_annotations(path)["categories"]
    return tuple(category_ids(categories, path))


def category_ids(categories: list[dict[str, Any]], path: Path) -> dict[str, int]:
    """Returns category ids by class name, in the order of the ids.

    Args:
        categories: the list of that name; ids may have gaps.
        path: the file it is from, for messages.

    Raises:
        DataError: a category lacks its id or name, or two share one.
    """
    for category in categories:
        if not {"id", "name"} <= category.keys():
            raise DataError(f"{path}: category {category} has no 'id' or no 'name'")
    by_name = {c["name"]: c["id"] for c in sorted(categories, key=lambda c: c["id"])}
    if len(by_name) < len(categories) or len(set(by_name.values())) < len(categories):
        raise DataError(
            f"{path}: two categories have the same id or name",
            expected="each category has its own id and name",
        )
    return by_name


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"annotation file not found: {path}",
            expected="the COCO layout: DATA_ROOT/annotations/instances_train2017.json, "
            "DATA_ROOT/train2017/, and the same for val2017",
            hint="name the folder of your data: --cfg-options data_root=DATA_ROOT",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", expected="a JSON file in UTF-8") from None


def _find_categories(text: str) -> list[dict[str, Any]] | None:
    """Returns the list behind the key "categories" if one stands there whole, else None."""
    for found in re.finditer(r'"categories"\s*:\s*(?=\[)', text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, found.end())
        except json.JSONDecodeError:
            continue
        if value and all(isinstance(c, dict) and {"id", "name"} <= c.keys() for c in value):
            return value
    return None
