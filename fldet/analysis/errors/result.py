"""What an analysis of errors finds, as frozen dataclasses, and its file."""

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fldet.analysis.errors.kinds import KINDS
from fldet.analysis.errors.matching import AREAS, RECALLS
from fldet.errors import DataError
from fldet.files import write_atomically
from fldet.results import SCHEMA, Count, Share, read_stored, to_jsonable

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

    count: Count
    confident: Count
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

    counts: tuple[Count, ...]
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

    image_id: Hashable
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
    curves: dict[str, tuple[tuple[Share, ...], ...]]
    score_thr: float
    confusion: tuple[tuple[Count, ...], ...]
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
    what = "analysis of errors"
    hint = "fldet analyze errors CONFIG RESULTS --out-dir FOLDER"
    analysis: ErrorAnalysis = read_stored(path, ErrorAnalysis, what=what, hint=hint)
    if fault := _fault(analysis):
        raise DataError(f"{path} is no {what}: {fault} do not fit the classes", hint=hint)
    return analysis


def _fault(analysis: ErrorAnalysis) -> str:
    """Returns which parts do not belong together, empty if all do."""
    number, calibration = len(analysis.classes), analysis.calibration
    bins = (calibration.counts, calibration.mean_score, calibration.precision)
    images = (*analysis.worst, *analysis.others)
    boxes = [box for one in images for box in (*one.objects, *one.detections)]
    fits = {
        "kinds": set(analysis.kinds) == set(KINDS),
        "curves": set(analysis.curves) == set(AREAS)
        and all(len(of_area) == number for of_area in analysis.curves.values())
        and all(len(one) in (0, len(RECALLS)) for all_ in analysis.curves.values() for one in all_),
        "confusion": {len(analysis.confusion), *map(len, analysis.confusion)} == {number + 1},
        "calibration": all(len(values) == BINS for values in bins),
        "boxes": all(len(box.box_xywh) == 4 and 0 <= box.label < number for box in boxes),
    }
    return ", ".join(name for name, good in fits.items() if not good)
