"""The files of folds.

A folder of folds has ``folds.json``, which says how they were made, and ``fold_1.json`` and so on:
lists of the images of each, as data sets take them (``only_images``). ``fldet data split`` writes
these. ``fldet cross-validate`` works in such a folder and adds

- ``config.py``, the config that is trained, and ``fold_1/`` and so on, the work dirs;
- ``annotations.json``, the ground truth of all images in COCO's format, each image with its
  ``fold`` and the absolute path of its file as ``file_name``;
- ``detections.json``, the detections of every image by the model that was not trained on it, in
  COCO's results format, with the ids of ``annotations.json``.

``fldet.evaluation.out_of_fold`` reads and writes the last two.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fldet.data.image_lists import read_names
from fldet.errors import DataError, UsageError, shorten
from fldet.files import write_atomically
from fldet.results import Count, Within, read_stored, to_jsonable

FOLDS, ANNOTATIONS, DETECTIONS = "folds.json", "annotations.json", "detections.json"
MOST_FOLDS = 1000

_WHAT = "file of folds"
_HINT = "fldet data split DATA --folds 5 writes one"


@dataclass(frozen=True)
class Folds:
    """How images were divided; folds are numbered from 1."""

    count: Annotated[int, Within(2, MOST_FOLDS)]  # of folds
    seed: Count
    stratified: bool  # whether the classes were balanced over them
    group_by: str  # what keeps images together beside near copies; "" for nothing
    images: Count  # in all folds
    groups: Count  # of images that stay together

    @property
    def numbers(self) -> range:
        """The numbers of the folds."""
        return range(1, self.count + 1)


def is_folder_of_folds(folder: Path) -> bool:
    """Returns whether a folder has a file of folds."""
    return (folder / FOLDS).is_file()


def list_of_fold(folder: Path, number: int) -> Path:
    """Returns where the names of the images of a fold are listed."""
    return folder / f"fold_{number}.json"


def work_dir_of_fold(folder: Path, number: int) -> Path:
    """Returns the work dir of the training that left a fold out."""
    return folder / f"fold_{number}"


def write_folds(folds: Folds, folder: Path) -> Path:
    """Writes ``folds.json`` into a folder, after all that it is about; returns its path."""
    return write_atomically(folder / FOLDS, json.dumps(to_jsonable(folds), indent=1) + "\n")


def read_folds(folder: Path) -> Folds:
    """Returns what ``folds.json`` in a folder says.

    Raises:
        DataError: there is none, it is malformed, or the list of a fold is missing.
    """
    if not is_folder_of_folds(folder):
        raise DataError(f"{folder} has no {FOLDS}", expected="a folder of folds", hint=_HINT)
    found: Folds = read_stored(folder / FOLDS, Folds, what=_WHAT, hint=_HINT)
    for number in found.numbers:
        if not list_of_fold(folder, number).is_file():
            raise DataError(
                f"{list_of_fold(folder, number)} is missing, the list of the images of a fold",
                expected=f"a list for each of {found.count} folds",
                hint=_HINT,
            )
    return found


def check_fold(number: int, folds: Folds, folder: Path) -> None:
    """Does nothing if a folder has a fold of this number; else it is a UsageError."""
    if number not in folds.numbers:
        raise UsageError(
            f"{folder} has no fold {number}", expected=f"a whole number from 1 to {folds.count}"
        )


def fold_of_names(folder: Path) -> dict[str, int]:
    """Returns the fold of each image by its file name, as the lists in a folder have it.

    Raises:
        DataError: as ``read_folds``; a list is malformed, or an image is in two of them.
    """
    fold_of: dict[str, int] = {}
    for number in read_folds(folder).numbers:
        names = read_names(list_of_fold(folder, number))
        if twice := fold_of.keys() & names:
            name = min(twice)
            raise DataError(
                f"{shorten(name)} is in fold {fold_of[name]} and in fold {number} of {folder}",
                expected="every image in one fold at most",
                hint=_HINT,
            )
        fold_of |= dict.fromkeys(names, number)
    return fold_of
