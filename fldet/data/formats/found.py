"""A data set that was recognised: its splits, its classes and what is odd about it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from fldet.data.annotations import group_ids, id_of
from fldet.errors import UsageError
from fldet.registry import DATASETS
from fldet.text import counted

SAMPLE = 20  # images or XML files that are looked for or into
SHOWN = 5  # names in a note

Options = dict[str, Any]


@dataclass(frozen=True)
class FoundData:
    """A data set that was recognised."""

    format: str  # ``COCO``, ``Roboflow COCO``, ``Pascal VOC``, ``YOLO``; of READERS
    root: Path  # that the paths in ``splits`` are relative to, absolute
    splits: dict[str, Options]  # ``type`` and keywords of each split's data set class
    notes: list[str] = field(default_factory=list)  # what is left out or odd, one sentence each

    def options(self, split: str) -> Options:
        """Returns all keywords of a split's data set, and ``type``."""
        if split not in self.splits:
            raise UsageError(
                f"{self.root} has no split {split!r}", expected=f"one of: {', '.join(self.splits)}"
            )
        return {"data_root": str(self.root), **self.splits[split]}

    def read(self, split: str) -> dict[str, Any]:
        """Returns the content of a split as a COCO file holds it."""
        options = self.options(split)
        content: dict[str, Any] = DATASETS.get(options["type"]).read(options)
        return content

    def image_folder(self, split: str) -> Path:
        """Returns the folder that the file names in ``read`` are relative to."""
        options = self.options(split)
        folder: Path = DATASETS.get(options["type"]).image_folder(options)
        return folder


def options_of(kind: str, root: Path, file: Path, images: Path) -> Options:
    """Returns ``type`` and keywords of a data set, with paths relative to ``root`` where inside."""
    inside = images.is_relative_to(root)
    return {
        "type": kind,
        "ann_file": file.relative_to(root).as_posix(),
        "data_prefix": {"img": (images.relative_to(root) if inside else images).as_posix()},
    }


def names_of(files: Iterable[Path], root: Path) -> str:
    """Returns the first names, relative to ``root``, for a message."""
    names = [file.relative_to(root).as_posix() for file in files]
    return f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


def fullest(folders: Iterable[Path], count_in: Callable[[Path], int], wanted: int) -> Path | None:
    """Returns the folder that has most of the wanted files, the first of equals; None for none."""
    best, most = None, 0
    for folder in folders:
        if (count := count_in(folder)) > most:
            best, most = folder, count
        if most == wanted:
            break
    return best


def used_classes(contents: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the classes of all splits in the order of their ids, and placeholders left out.

    Roboflow puts a category before the others that only groups them: it has no boxes, and the
    others name it as their ``supercategory``. One of them may have its name.
    """
    contents = list(contents)
    with_boxes = {
        (index, id_of(one.get("category_id")))
        for index, content in enumerate(contents)
        for one in content["annotations"]
    }
    classes: dict[str, None] = {}
    groups: dict[str, None] = {}
    for index, content in enumerate(contents):
        empty = {key for key in group_ids(content["categories"]) if (index, key) not in with_boxes}
        for category in sorted(content["categories"], key=lambda one: one["id"]):
            (groups if category["id"] in empty else classes)[category["name"]] = None
    return tuple(classes), tuple(name for name in groups if name not in classes)


def oddities(found: FoundData, contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what a user should know of a data set whose splits were read, one sentence each."""
    notes = [*found.notes]
    if any(one.get("difficult") for content in contents.values() for one in content["annotations"]):
        notes.append("difficult objects are counted as crowd regions: no figure counts them")
    files = {
        split: {found.image_folder(split) / str(one.get("file_name")) for one in content["images"]}
        for split, content in contents.items()
    }
    for a, b in combinations(files, 2):
        if both := len(files[a] & files[b]):
            notes.append(f"{counted(both, 'image')} both in {a} and in {b}")
    return notes
