"""What a cross-validation has found on every image, by the model that was not trained on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.data.annotations import category_ids, id_of, read_annotations
from fldet.data.folds.files import ANNOTATIONS, DETECTIONS, Folds, read_folds
from fldet.errors import DataError, shorten
from fldet.evaluation.detections import (
    Detection,
    check_detections,
    load_detections,
    save_detections,
)
from fldet.files import write_atomically

_HINT = "fldet cross-validate CONFIG --work-dir {} goes on, and writes it at the end"


@dataclass(frozen=True)
class OutOfFold:
    """Ground truth and detections of all images of a cross-validation."""

    folder: Path  # of the cross-validation
    folds: Folds
    # content of a COCO file; each of its ``images`` has its ``fold``, from 1, and the absolute path
    # of its file as ``file_name``
    truth: dict[str, Any]
    detections: list[dict[str, Any]]  # in COCO's results format, with the ids of ``truth``

    @property
    def fold_of_image(self) -> dict[Any, int]:
        """The fold of each image by its id."""
        return {id_of(image["id"]): image["fold"] for image in self.truth["images"]}


def read_out_of_fold(folder: Path) -> OutOfFold:
    """Returns what ``fldet cross-validate`` has written into a folder.

    Raises:
        DataError: it is no folder of folds, the cross-validation has not ended, or a file is
            malformed.
    """
    folds = read_folds(folder)
    for name in (ANNOTATIONS, DETECTIONS):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no {name}: the cross-validation is not done",
                expected="a folder in which fldet cross-validate has ended",
                hint=_HINT.format(folder),
            )
    truth = read_annotations(folder / ANNOTATIONS)
    for image in truth["images"]:
        if image.get("fold") not in folds.numbers:
            raise DataError(
                f"{folder / ANNOTATIONS}: the fold of an image is {shorten(image.get('fold'))}",
                expected=f"a whole number from 1 to {folds.count}",
                hint=_HINT.format(folder),
            )
    detections = load_detections(folder / DETECTIONS)
    try:
        _check(truth, detections)
    except DataError as error:
        raise DataError(
            f"{folder / DETECTIONS}: {error.message}",
            expected=error.expected,
            hint=_HINT.format(folder),
        ) from None
    return OutOfFold(folder, folds, truth, detections)


def write_out_of_fold(
    folder: Path, truth: Mapping[str, Any], detections: Sequence[Detection]
) -> list[Path]:
    """Writes both files of a cross-validation into its folder; returns their paths."""
    _check(truth, detections)
    return [
        write_atomically(folder / ANNOTATIONS, json.dumps(truth) + "\n"),
        save_detections(folder / DETECTIONS, detections),
    ]


def _check(truth: Mapping[str, Any], detections: Sequence[Detection]) -> None:
    check_detections(
        detections,
        images=[id_of(image["id"]) for image in truth["images"]],
        categories=category_ids(truth["categories"], ANNOTATIONS).values(),
    )
