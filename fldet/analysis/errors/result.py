"""What an analysis of errors finds, as frozen dataclasses, and its file."""

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fldet.analysis.errors.kinds import KINDS
from fldet.errors import DataError
from fldet.evaluation.matching import AREAS, RECALLS
from fldet.files import write_atomically
from fldet.results import SCHEMA, Count, Share, read_stored, to_jsonable

BINS = 10  # of the scores, equally wide


@dataclass(frozen=True)
class Kind:
    """What one kind of mistake costs."""

    count: Count  # false positives or missed objects of this kind, whatever their score
    confident: Count  # those with the score threshold or more; all, of missed objects
    # how much AP50 in [0, 1] rises when this kind alone is repaired; NaN without objects. The gains
    # of the kinds do not add up to what is lacking.
    ap50_gain: float


@dataclass(frozen=True)
class Calibration:
    """How far a score is a probability: ``BINS`` bins of equal width over [0, 1]."""

    # detections in each bin, the upper edge not included but for the last
    counts: tuple[Count, ...]
    mean_score: tuple[float, ...]  # of them; NaN in an empty bin
    precision: tuple[float, ...]  # share of them that found an object; NaN in an empty bin
    # mean over the detections of the gap between the two, in [0, 1]; NaN without detections
    expected_error: float


@dataclass(frozen=True)
class DrawnBox:
    """A box of a picture."""

    box_xywh: tuple[float, ...]  # pixels
    label: int  # index of the class
    state: str  # ``correct``, ``crowd``, ``ignored`` or a name in ``KINDS``
    score: float | None  # of a detection, or of the one that found an object; None if none did
    # of a detection, the place among the image's objects of the one that it found, or that its
    # classification or localisation mistake points to; None without one
    target: int | None = None


@dataclass(frozen=True)
class DrawnImage:
    """An image with its boxes."""

    image_id: Hashable  # of the annotation file
    file_name: str | None  # of the annotation file, None if it has none
    # AP50 in [0, 1]. The gain of each kind is shared out among its mistakes, in proportion to their
    # scores, equally among missed objects; this is what falls on the image.
    cost: float
    objects: tuple[DrawnBox, ...]  # ground truth
    detections: tuple[DrawnBox, ...]  # those with the lowest score asked for, or more


@dataclass(frozen=True)
class ErrorAnalysis:
    """All that the pictures show."""

    annotations: str  # name of the annotation file
    results: str  # name of the file of detections
    images: int  # those listed
    objects: int  # ground truth, crowd regions not counted
    detections: int  # those that count; at most 100 of an image and class
    ap50: float  # COCO's AP50 in [0, 1], NaN without objects
    kinds: dict[str, Kind]  # by name in the order of ``KINDS``
    classes: tuple[str, ...]  # names by label
    # by area and label, precision at the recalls 0, 0.01 .. 1 at IoU 0.5; empty for a class without
    # objects of that size
    curves: dict[str, tuple[tuple[Share, ...], ...]]
    score_thr: float  # of the confusion matrix and the pictures
    # (K + 1, K + 1) counts at IoU 0.5, rows the true and columns the predicted class; the last row
    # is background, the last column missed
    confusion: tuple[tuple[Count, ...], ...]
    calibration: Calibration  # of the scores at IoU 0.5
    worst: tuple[DrawnImage, ...]  # the costliest first
    image_dir: str | None  # folder of the images, None if unknown
    # images drawn at random from those not in ``worst``, in the order of the ids
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
    """Returns what ``save`` wrote; another file is a ``DataError``."""
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
