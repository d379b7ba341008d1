"""Reading COCO annotation files, with errors that name the file and the field."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fldet.errors import DataError

LAYOUT = "a COCO file has the lists 'images', 'annotations' and 'categories', each entry its own id"
FIELDS = {"images": {"id"}, "annotations": set[str](), "categories": {"id", "name"}}


def read_annotations(path: Path) -> dict[str, Any]:
    """Returns the content of a COCO annotation file.

    Raises:
        DataError: there is no such file, it is not JSON, one of the three lists is missing, an
            image has no id, or a category no id or name.
    """
    content = read_json(path, "annotation file", LAYOUT)
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


def read_json(path: Path, what: str, expected: str) -> Any:
    """Returns the content of a JSON file.

    Args:
        path: the file.
        what: its kind, for messages.
        expected: what it should hold, for messages.

    Raises:
        DataError: there is no such file, or it is not JSON in UTF-8.
    """
    try:
        return json.loads(_read_text(path, what))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            expected=expected,
        ) from None


def read_class_names(path: Path) -> tuple[str, ...]:
    """Returns the class names of a COCO annotation file, in the order of their category ids.

    COCO's own training file has 450 MB, so the list of categories is looked for first and the
    whole file is parsed only where it cannot be found alone.

    Raises:
        DataError: as ``read_annotations``; or two categories share an id or a name.
    """
    categories = _find_categories(_read_text(path, "annotation file"))
    if categories is None:
        categories = read_annotations(path)["categories"]
    return tuple(category_ids(categories, path))


def category_ids(categories: list[dict[str, Any]], path: Path | str) -> dict[str, int]:
    """Returns category ids by class name, in the order of the ids.

    Args:
        categories: the list of that name; ids may have gaps.
        path: the file it is from, for messages.

    Raises:
        DataError: two categories share an id or a name.
    """
    by_name = {c["name"]: c["id"] for c in sorted(categories, key=lambda c: c["id"])}
    if len(by_name) < len(categories) or len(set(by_name.values())) < len(categories):
        raise DataError(
            f"{path}: two categories have the same id or name",
            expected="each category has its own id and name",
        )
    return by_name


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{what} not found: {path}", expected="the path of a file") from None
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
