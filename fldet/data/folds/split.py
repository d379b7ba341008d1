"""Divides the training images of a data set into folds, and writes which image is in which."""

import logging
import os
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from fldet.data.folds.choice import choose_folds
from fldet.data.folds.files import FOLDS, MOST_FOLDS, Folds, list_of_fold, write_folds
from fldet.data.formats.found import used_classes
from fldet.data.formats.recognise import recognise
from fldet.data.holdout.copies import join
from fldet.data.holdout.set_aside import boxes_by_file, first_of, near_copies
from fldet.data.image_lists import list_text
from fldet.data.stream import is_seed
from fldet.errors import DataError, UsageError, shorten
from fldet.files import make_folder, write_atomically

log = logging.getLogger("fldet")


@dataclass(frozen=True)
class SplitOptions:
    """How images are divided.

    Attributes:
        folds: how many.
        group_by: what keeps images together beside near copies: a field of the entries of images in
            a COCO file, or a regular expression that is looked for in the file names, whose groups
            (without any, all that it finds) are equal; "" for nothing.
        stratify: whether the boxes of each class are balanced over the folds.
        seed: another one divides otherwise.
    """

    folds: int = 5
    group_by: str = ""
    stratify: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Division:
    """Which image is in which fold."""

    folds: Folds
    fold_of: dict[str, int]  # fold by file name, from 1
    images: tuple[int, ...]  # in each fold
    boxes: dict[str, tuple[int, ...]]  # in each fold by class; crowd regions do not count

    def write(self, folder: Path) -> None:
        """Writes the list of each fold into a folder, and then ``folds.json``."""
        for number in self.folds.numbers:
            names = sorted(name for name, fold in self.fold_of.items() if fold == number)
            write_atomically(list_of_fold(folder, number), list_text(names))
        write_folds(self.folds, folder)


@dataclass(frozen=True)
class WrittenDivision:
    """A folder of folds that was written."""

    folder: Path
    division: Division


def split_data(
    path: Path,
    options: SplitOptions,
    out: Path | None = None,
    images: Path | None = None,
) -> WrittenDivision:
    """Divides the training images of a data set, and writes lists of them into a folder.

    Args:
        path: of the data set, for ``recognise``; if it has other splits too, they stay as they are.
        options: how to divide.
        out: the folder, which must not have folds yet; None is beside the data, ``NAME_folds``.
        images: folder of the images, for ``recognise``.

    Raises:
        UsageError: the options are not valid, or ``out`` has folds.
        DataError: the data set is not recognised, malformed, or cannot be divided so.
    """
    found = recognise(path, images)
    for note in found.notes:
        log.warning("%s", note)
    if "train" not in found.splits:
        raise DataError(
            f"{found.root} has no training images, only {', '.join(found.splits)}",
            expected="a split called 'train', which is divided",
            hint="name the file or folder that has only the images to divide",
        )
    if others := [split for split in found.splits if split != "train"]:
        log.warning("the training images are divided; %s stays as it is", " and ".join(others))
    out = out or found.root.with_name(f"{found.root.name}_folds")
    if (out / FOLDS).exists():
        raise UsageError(
            f"{out} has folds already", expected="a new folder", hint="choose another --out"
        )
    division = divide(found.read("train"), found.image_folder("train"), options)
    make_folder(out)
    division.write(out)
    return WrittenDivision(Path(os.path.abspath(out)), division)


def divide(content: Mapping[str, Any], folder: Path, options: SplitOptions) -> Division:
    """Returns which image is in which fold, and warns of classes that are too rare.

    Near copies stay together (``near_copies``). Images that cannot be read, or not in their
    annotated size, are in no fold: they stay in training. The same images are divided alike.

    Args:
        content: of a COCO file.
        folder: that its file names are relative to.
        options: how to divide.

    Raises:
        UsageError: the options are not valid.
        DataError: there are fewer groups than folds, or ``group_by`` finds nothing.
    """
    _check(options)
    groups, unread = near_copies(content, folder)
    if options.group_by:
        groups = _joined(groups, _keys(content["images"], options.group_by))
    staying = {groups[name] for name in unread}
    groups = {name: group for name, group in groups.items() if group not in staying}
    boxes = boxes_by_file(content)
    fold_of = choose_folds(
        groups, boxes, options.folds, stratify=options.stratify, seed=options.seed
    )
    folds = Folds(
        count=options.folds,
        seed=options.seed,
        stratified=options.stratify,
        group_by=options.group_by,
        images=len(fold_of),
        groups=len(set(groups.values())),
    )
    counts = [Counter[str]() for _ in folds.numbers]
    for name, fold in fold_of.items():
        counts[fold - 1].update(boxes.get(name, {}))
    classes = used_classes([content])[0]
    _warn_of_rare(classes, groups, boxes, options.folds)
    sizes = Counter(fold_of.values())
    return Division(
        folds,
        fold_of,
        images=tuple(sizes[number] for number in folds.numbers),
        boxes={name: tuple(count[name] for count in counts) for name in classes},
    )


def _check(options: SplitOptions) -> None:
    if not 2 <= options.folds <= MOST_FOLDS:
        raise UsageError(f"{options.folds} folds", expected=f"from 2 to {MOST_FOLDS}")
    if not is_seed(options.seed):
        raise UsageError(f"the seed is {options.seed}", expected="a whole number, at least 0")


def _keys(images: Sequence[Mapping[str, Any]], group_by: str) -> dict[str, Hashable]:
    """Returns what images must have in common to stay together by file name, where it is known."""
    keys: dict[str, Hashable] = {}
    is_field = any(group_by in image for image in images)
    pattern = None if is_field else _compiled(group_by)
    for image in images:
        name = image.get("file_name")
        if not isinstance(name, str):
            continue
        if pattern is None:
            if image.get(group_by) is not None:
                keys[name] = dumps(image[group_by], sort_keys=True)
        elif match := pattern.search(name):
            keys[name] = match.groups() or match[0]
    if not keys:
        first = shorten(str(images[0].get("file_name"))) if images else "none"
        raise DataError(
            f"--group-by {shorten(group_by)} is neither a field of the images nor found in any of "
            f"their {len(images)} file names",
            expected=f"a regular expression that fits names such as {first}",
            hint=r"--group-by '^([^_]+)_' keeps those together that are equal up to the first _",
        )
    if alone := sorted({str(image.get("file_name")) for image in images} - keys.keys()):
        log.warning(
            "--group-by says nothing about %d of %d images, which count as single ones: %s",
            len(alone),
            len(images),
            first_of(alone),
        )
    return keys


def _compiled(pattern: str) -> "re.Pattern[str]":
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group-by {shorten(pattern)} is no field of the images, and as a regular expression "
            f"it is malformed: {error}",
            expected="a field of the images, or a regular expression such as '^([^_]+)_'",
        ) from None


def _joined(groups: Mapping[str, int], keys: Mapping[str, Hashable]) -> dict[str, int]:
    """Returns groups where images of one key are in one group too."""
    names = list(groups)
    numbers = np.array([groups[name] for name in names])
    members: dict[Hashable, list[int]] = {}
    for index, name in enumerate(names):
        if name in keys:
            members.setdefault(keys[name], []).append(index)
    for indices in members.values():
        join(numbers, np.array(indices))
    return dict(zip(names, map(int, numbers), strict=True))


def _warn_of_rare(
    classes: Sequence[str],
    groups: Mapping[str, int],
    boxes: Mapping[str, Mapping[str, int]],
    count: int,
) -> None:
    """Warns of classes that cannot be in every fold."""
    having: dict[str, set[int]] = {name: set() for name in classes}
    for name, group in groups.items():
        for one in boxes.get(name, ()):
            having.setdefault(one, set()).add(group)
    rare = [f"{name} ({len(found)})" for name, found in having.items() if len(found) < count]
    if rare:
        log.warning(
            "classes in fewer images than folds, near copies and groups being one: %s; some folds "
            "have none to validate on%s",
            first_of(rare),
            ", and a class in one alone is not trained where that is left out"
            if any(len(found) == 1 for found in having.values())
            else "",
        )
