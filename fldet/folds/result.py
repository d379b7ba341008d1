"""What a cross-validation has found: each figure in every fold, its mean and its spread."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from fldet.data.annotations import id_of
from fldet.data.folds.files import Folds
from fldet.evaluation.coco import evaluate_coco
from fldet.evaluation.ground_truth import read_ground_truth
from fldet.evaluation.out_of_fold import OutOfFold

FIGURES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


@dataclass(frozen=True)
class FoldFigure:
    """A figure of a cross-validation in percent; NaN where there is no box of that kind."""

    name: str  # of the figure, or of a class whose AP it is
    folds: tuple[float, ...]  # in each fold, by the model that has not seen it
    mean: float  # of the folds that have it
    deviation: float  # standard deviation of these, of a sample; NaN of fewer than two
    together: float  # of the detections of all folds, evaluated as if they were of one model


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation has found."""

    folder: Path
    folds: Folds
    images: tuple[int, ...]  # of each fold
    figures: tuple[FoldFigure, ...]  # COCO's AP, AP50 and so on
    classes: tuple[FoldFigure, ...]  # AP of each class


def summarize(found: OutOfFold) -> CrossValidation:
    """Returns the figures of all folds, of what their models have found on images new to them."""
    truth = read_ground_truth(found.truth)
    ids: dict[int, list[object]] = {number: [] for number in found.folds.numbers}
    for image in found.truth["images"]:
        ids[image["fold"]].append(id_of(image["id"]))
    folds = [evaluate_coco(truth, found.detections, image_ids=some) for some in ids.values()]
    whole = evaluate_coco(truth, found.detections)
    return CrossValidation(
        folder=found.folder,
        folds=found.folds,
        images=tuple(len(some) for some in ids.values()),
        figures=_figures(FIGURES, [one.summary for one in folds], whole.summary),
        classes=_figures(list(whole.per_class), [one.per_class for one in folds], whole.per_class),
    )


def _figures(
    names: Sequence[str], folds: Sequence[Mapping[str, float]], whole: Mapping[str, float]
) -> tuple[FoldFigure, ...]:
    return tuple(
        fold_figure(name, [100 * one[name] for one in folds], 100 * whole[name]) for name in names
    )


def fold_figure(name: str, values: Sequence[float], together: float) -> FoldFigure:
    """Returns a figure with mean and standard deviation over the folds where it is no NaN."""
    known = [value for value in values if not math.isnan(value)]
    mean = fmean(known) if known else math.nan
    deviation = stdev(known) if len(known) > 1 else math.nan
    return FoldFigure(name, tuple(values), mean, deviation, together)
