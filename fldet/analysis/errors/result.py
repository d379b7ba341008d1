"""What an analysis of errors finds, as frozen dataclasses, and its file."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fldet.errors import DataError
from fldet.files import read_json, write_atomically
from fldet.results import SCHEMA, to_jsonable

BINS = 10  # of the scores, equally wide


@dataclass(frozen=True)
class Kind:
    """What one kind of mistake costs.

    Attributes:
        count: false positives or missed objects of this kind, whatever their score.
        confident: those with the score threshold or more; all, of missed objects.
        ap50_gain: how much AP50 in [0, 1] rises when this kind alone is repaired; NaN without
            objects. The gains of the kinds do not add up to what is lacking.
    """

    count: int
    confident: int
    ap50_gain: float


@dataclass(frozen=True)
class Calibration:
    """How far a score is a probability: ``BINS`` bins of equal width over [0, 1].

    Attributes:
        counts: detections in each bin, the upper edge not included but for the last.
        mean_score: of them; NaN in an empty bin.
        precision: share of them that found an object; NaN in an empty bin.
        expected_error: mean over the detections of the gap between the two, in [0, 1]; NaN
            without detections.
    """

    counts: tuple[int, ...]
    mean_score: tuple[float, ...]
    precision: tuple[float, ...]
    expected_error: float


@dataclass(frozen=True)
class DrawnBox:
    """A box of a picture.

    Attributes:
        box_xywh: pixels.
        label: index of the class.
        state: ``correct``, ``crowd``, ``ignored`` or a name in ``KINDS``.
        score: of a detection, or of the one that found an object; None if none did.
        target: of a detection, the place among the image's objects of the one that it found, or
            that its classification or localisation mistake points to; None without one.
    """

    box_xywh: tuple[float, ...]
    label: int
    state: str
    score: float | None
    target: int | None = None


@dataclass(frozen=True)
class DrawnImage:
    """An image with its boxes.

    Attributes:
        image_id: of the annotation file.
        file_name: of the annotation file, None if it has none.
        cost: AP50 in [0, 1]. The gain of each kind is shared out among its mistakes, in
            proportion to their scores, equally among missed objects; this is what falls on the
            image.
        objects: ground truth.
        detections: those with the lowest score asked for, or more.
    """

    image_id: Any
    file_name: str | None
    cost: float
    objects: tuple[DrawnBox, ...]
    detections: tuple[DrawnBox, ...]


@dataclass(frozen=True)
class ErrorAnalysis:
    """All that the pictures show.

    Attributes:
        annotations: name of the annotation file.
        results: name of the file of detections.
        images: images listed.
        objects: ground truth, crowd regions not counted.
        detections: those that count; at most 100 of an image and class.
        ap50: COCO's AP50 in [0, 1], NaN without objects.
        kinds: by name in the order of ``KINDS``.
        classes: names by label.
        curves: by area and label, precision at the recalls 0, 0.01 .. 1 at IoU 0.5; empty for a
            class without objects of that size.
        score_thr: of the confusion matrix and the pictures.
        confusion: (K + 1, K + 1) counts at IoU 0.5, rows the true and columns the predicted
            class; the last row is background, the last column missed.
        calibration: of the scores at IoU 0.5.
        worst: images, the costliest first.
        image_dir: folder of the images, None if unknown.
        others: images drawn at random from those not in ``worst``, in the order of the ids.
    """

    annotations: str
    results: str
    images: int
    objects: int
    detections: int
    ap50: float
    kinds: dict[str, Kind]
    classes: tuple[str, ...]
    curves: dict[str, tuple[tuple[float, ...], ...]]
    score_thr: float
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    worst: tuple[DrawnImage, ...]
    image_dir: str | None
    others: tuple[DrawnImage, ...] = ()


def mean_precision(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Returns the mean over the classes with objects of precision at each recall, or nothing."""
    present = [curve for curve in curves if curve]
    return tuple(np.mean(present, axis=0).tolist()) if present else ()


def ap50_of(curves: Sequence[Sequence[float]]) -> float:
    """Returns AP50 in [0, 1], the mean over the classes with objects, NaN without any."""
    mean = mean_precision(curves)
    return float(np.mean(mean)) if mean else math.nan


# --- file ----------------------------------------------------------------------------------------


def save(analysis: ErrorAnalysis, path: Path) -> Path:
    """Writes an analysis as JSON; ``load`` gives the same back. About 0.2 MB for ten classes."""
    content = {"schema": SCHEMA, "analysis": "errors", **to_jsonable(analysis)}
    return write_atomically(path, json.dumps(content) + "\n")


def load(path: Path) -> ErrorAnalysis:
    """Returns what ``save`` wrote.

    Raises:
        DataError: no such file, or another one.
    """
    expected = "an errors.json that fldet analyze errors wrote"
    content = read_json(path, "analysis", expected=expected)
    try:
        if content.pop("analysis") != "errors" or content.pop("schema") != SCHEMA:
            raise ValueError
        return _restored(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{path} is no analysis of errors of this version",
            expected=expected,
            hint="fldet analyze errors CONFIG RESULTS --out-dir FOLDER",
        ) from None


def _restored(content: dict[str, Any]) -> ErrorAnalysis:
    kinds = {name: Kind(**_with_nan(one)) for name, one in content.pop("kinds").items()}
    calibration = Calibration(**_with_nan(content.pop("calibration")))
    worst, others = (_images(content.pop(key, ())) for key in ("worst", "others"))
    ap50 = _with_nan({"ap50": content.pop("ap50")})
    rest = _tuples(content) | ap50
    return ErrorAnalysis(kinds=kinds, calibration=calibration, worst=worst, others=others, **rest)


def _images(content: Sequence[dict[str, Any]]) -> tuple[DrawnImage, ...]:
    return tuple(
        DrawnImage(
            **{key: one[key] for key in ("image_id", "file_name", "cost")},
            objects=tuple(DrawnBox(**_tuples(box)) for box in one["objects"]),
            detections=tuple(DrawnBox(**_tuples(box)) for box in one["detections"]),
        )
        for one in content
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _with_nan(value: Any) -> Any:
    """Returns ``value`` with NaN for None, which stands for it in JSON, and tuples for lists."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_with_nan(item) for item in value)
    return math.nan if value is None else value
