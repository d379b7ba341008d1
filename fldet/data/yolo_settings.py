"""Classes and splits of YOLO data: ``data.yaml``, or what other tools write in its place."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from os.path import isfile  # unlike pathlib's, false for names that cannot be
from pathlib import Path
from typing import Any

from fldet.data.folders import (
    files_below,
    folder_named,
    listing,
    split_folders,
    split_named,
    text_lines,
)
from fldet.data.image_files import IMAGE_ENDINGS
from fldet.data.markup import read_yaml
from fldet.errors import DataError, shorten
from fldet.files import MOST_OF_SETTINGS

LAYOUT = "data.yaml holds 'names' and folders or lists of images as 'train', 'val', 'test'"
ALIASES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# What stands for a data.yaml, the first goes before the others: files of darknet and CVAT, of
# Roboflow, of Label Studio and labelImg.
NAME_FILES = ("obj.data", "obj.names", "_darknet.labels", "classes.txt")

_NULL = ("", "~", "null", "Null", "NULL")
_lines = partial(text_lines, what="list of images", expected="paths of images, one a line")
_in_folder = partial(files_below, endings=IMAGE_ENDINGS)


@dataclass(frozen=True)
class Settings:
    """Classes and splits: a data.yaml, or what other tools write in its place."""

    path: Path
    names: tuple[str, ...]  # by number, from 0
    splits: dict[str, tuple[str, ...]]  # what the file gives for train, val, test
    root: Path  # folder that those are relative to
    key_points: int = 0  # numbers behind the box in each row of pose labels; 0 where there are none

    @cached_property
    def folder(self) -> Path:
        """The folder that has the file and the images of all splits, as a rule its own."""
        found = (place(self, name) for names in self.splits.values() for name in names)
        folders = (one if one.is_dir() else one.parent for one in found if one)
        return Path(os.path.commonpath(map(os.path.abspath, (self.path.parent, *folders))))


def read_settings(path: Path) -> Settings:
    """Returns classes and splits of a ``data.yaml`` or of one of ``NAME_FILES``, checked."""
    if path.suffix.lower() in (".yaml", ".yml"):
        content = read_yaml(path, expected=LAYOUT)
        names, splits = _names(content, path), _splits(content, path)
        return Settings(path, names, splits, _root(content, path), _key_points(content, path))
    if path.suffix.lower() == ".data":
        return _darknet(path)
    return _by_folders(path, _listed_names(path))


def _names(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(one, str) and one for one in names):
        names = []
    if not names:
        raise DataError(
            f"{path}: 'names' is {shorten(content.get('names'))}",
            expected="a list of names, or names by number: 0, 1, 2, ...",
        )
    return _checked(names, content.get("nc", ""), path)


def _checked(names: list[str], stated: Any, path: Path) -> tuple[str, ...]:
    """Returns names if they differ and are as many as the file says, where it does."""
    different = len(set(names))
    if different < len(names) or stated not in (*_NULL, str(len(names))):
        raise DataError(
            f"{path}: {len(names)} names, {different} different ones, and nc is {shorten(stated)}",
            expected="each class has its own name, and nc is their number",
        )
    return tuple(names)


def _listed_names(path: Path, stated: str = "") -> tuple[str, ...]:
    """Returns the names in a file with one on each line; an empty line would be a class too."""
    layout = "the name of a class on each line"
    lines = text_lines(path, "file of class names", expected=layout, most=MOST_OF_SETTINGS)
    while lines and not lines[-1]:
        lines.pop()
    if not lines or "" in lines:
        number = lines.index("") + 1 if lines else 1
        raise DataError(f"{path}:{number}: there is no name", expected=layout)
    return _checked(lines, stated, path)


def _darknet(path: Path) -> Settings:
    """Returns what an ``obj.data`` says: ``train = data/train.txt``, on the machine of training."""
    lines = text_lines(path, "annotation file", expected="obj.data", most=MOST_OF_SETTINGS)
    content = {key.strip(): text.strip() for key, _, text in (one.partition("=") for one in lines)}
    names = _there(path.parent, content.get("names", ""))
    if names is None:
        raise DataError(
            f"{path}: 'names' is {shorten(content.get('names'))}", expected="a file with names"
        )
    places = {key: _there(path.parent, text) or Path(text) for key, text in content.items()}
    splits = _splits({key: str(one) for key, one in places.items()}, path)
    return Settings(path, _listed_names(names, content.get("classes", "")), splits, path.parent)


def _there(folder: Path, name: str) -> Path | None:
    """Returns what a name means in a folder; the first folder in the name may be that one."""
    tails = (name, name.partition("/")[2]) if name else ()
    return next((folder / tail for tail in tails if tail and os.path.exists(folder / tail)), None)


def _by_folders(path: Path, names: tuple[str, ...]) -> Settings:
    """Returns the splits that folders beside a file with names have; one folder is ``train``."""
    root = path.parent
    while _is_part(root):
        root = root.parent
    pictures = folder_named(root, ["images"])
    for base in (root, pictures) if pictures else (root,):
        splits = split_folders(base, lambda folder: bool(_in_folder(folder)))
        if splits:
            return Settings(path, names, {s: (str(one),) for s, one in splits.items()}, root)
    return Settings(path, names, {"train": (str(pictures or root),)}, root)


def _is_part(folder: Path) -> bool:
    """Returns whether the root of a data set is above: ``labels``, or ``train`` without folders."""
    if folder.name.lower() in ("labels", "images"):
        return folder_named(folder, ["labels", "images"]) is None
    is_split = split_named(folder.name) is not None
    return is_split and not any(one.is_dir() for one in listing(folder))


def _splits(content: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    splits = {}
    for split, keys in ALIASES.items():
        given = {key: content[key] for key in keys if content.get(key, "") not in (*_NULL, [])}
        if len(given) > 1:
            raise DataError(f"{path} gives {' and '.join(given)}", expected="one of them")
        for value in given.values():
            places = value if isinstance(value, list) else [value]
            if not all(isinstance(place, str) for place in places):
                raise DataError(f"{path}: {split!r} is {shorten(value)}", expected=LAYOUT)
            splits[split] = tuple(places)
    return splits


def _root(content: Mapping[str, Any], path: Path) -> Path:
    """Returns ``path`` of the file if there is such a folder, else the folder of the file.

    What the key names is a folder on the machine that wrote it, as a rule.
    """
    name = content.get("path")
    folder = path.parent / name if isinstance(name, str) else path.parent
    return folder if os.path.isdir(folder) else path.parent


def _key_points(content: Mapping[str, Any], path: Path) -> int:
    """Returns how many numbers of key points a row has: ``kpt_shape: [17, 3]`` means 51."""
    shape = content.get("kpt_shape", "")
    if isinstance(shape, str) and shape in _NULL:
        return 0
    numbers = shape if isinstance(shape, list) else []
    if len(numbers) != 2 or not all(
        isinstance(one, str) and re.fullmatch("[1-9][0-9]{0,3}", one) for one in numbers
    ):
        raise DataError(
            f"{path}: 'kpt_shape' is {shorten(shape)}",
            expected="two numbers: of key points, and of numbers of each",
        )
    return int(numbers[0]) * int(numbers[1])


def place(data: Settings, name: str) -> Path | None:
    """Returns the folder or list that a split names, None if there is none.

    Roboflow writes ``../train/images`` for a folder that lies beside ``data.yaml``.
    """
    found = (data.root / name, data.root / name.removeprefix("../"))
    return next((Path(os.path.normpath(path)) for path in found if os.path.exists(path)), None)


def image_files(data: Settings, split: str) -> list[Path]:
    """Returns the images of a split, sorted by name.

    Raises:
        DataError: the file has no such split, its folder or list is missing, or has no image.
    """
    if split not in data.splits:
        raise DataError(
            f"{data.path} has no {split!r}",
            expected=f"one of: {', '.join(data.splits) or 'train, val, test'}",
        )
    files: set[Path] = set()
    for name in data.splits[split]:
        path = place(data, name)
        if path is None:
            raise DataError(
                f"{data.path}: {split} is {shorten(name)}, and there is no {data.root / name}",
                expected="a folder of images, or a list of them, relative to data.yaml or to "
                "the folder that it gives as 'path'",
            )
        files |= set(_in_folder(path) if path.is_dir() else _in_list(path, data))
    if not files:
        raise DataError(f"{data.path}: {split} has no image", expected="at least one")
    return sorted(files)


def has_images(data: Settings, split: str) -> bool:
    """Returns whether a place of a split has an image or names one."""
    places = (place(data, name) for name in data.splits[split])
    return any(_in_folder(path) if path.is_dir() else any(_lines(path)) for path in places if path)


def _in_list(path: Path, data: Settings) -> Iterable[Path]:
    """Yields the images of a list once each; names are relative to it, or to the root."""
    seen = {""}
    for number, line in enumerate(_lines(path), start=1):
        name = os.path.normpath(line) if line else ""
        if name in seen:
            continue
        seen.add(name)
        found = _there(path.parent, line) or _there(data.root, line)
        if found is None or not isfile(found):
            raise DataError(
                f"{path}:{number}: there is no image {shorten(line)}",
                expected=f"a file, relative to {path.parent}",
            )
        yield Path(os.path.normpath(found))
