"""Which score of each class serves an aim best, and how sure that is."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan

import numpy as np

from fldet.analysis.thresholds.result import ClassThreshold, HeldOut, ThresholdAnalysis
from fldet.errors import DataError
from fldet.evaluation.detected import Detected
from fldet.evaluation.matching import Bools, Floats, Ints, detection_table, match, object_table

SAMPLES = 200  # of the images, for the interval of one set
PERCENTILES = (5, 95)
MOST_POINTS = 200  # of a curve in the file
_TIE = 1e-12  # a difference of F1 that is rounding


@dataclass(frozen=True)
class Aim:
    """What a threshold is to reach: ``f1`` the largest, or a ``precision`` or ``recall``."""

    figure: str = "f1"
    value: float = nan  # of precision or recall, in [0, 1]

    def __str__(self) -> str:
        return "largest F1" if self.figure == "f1" else f"{self.figure} {self.value:g}"


@dataclass(frozen=True)
class _Ranked:
    """The detections of a class that are right or wrong, best scores first."""

    score: Floats  # (N,)
    correct: Bools  # (N,) True for those that found an object
    image: Ints  # (N,) place of the image
    object_image: Ints  # (M,) that of each object to find

    def part(self, images: Bools) -> "_Ranked":
        """Returns what lies in some images, (I,) True for them."""
        mine = images[self.image]
        return _Ranked(
            self.score[mine],
            self.correct[mine],
            self.image[mine],
            self.object_image[images[self.object_image]],
        )


@dataclass(frozen=True)
class _Curve:
    """Figures for each score that a threshold can part from the next one, falling."""

    score: Floats  # (S,) thresholds
    figures: Floats  # (S, 3) precision, recall, F1


def find_thresholds(detected: Detected, aim: Aim, *, iou: float = 0.5) -> ThresholdAnalysis:
    """Returns the threshold of each class.

    A class without objects or detections gets the best one for all classes together.

    Args:
        detected: detections, truth, and folds where there are some.
        aim: what each class is to reach.
        iou: from which a detection has found an object.

    Raises:
        DataError: there is no object, or no detection.
    """
    truth = detected.truth
    ranked = _by_class(detected, iou)
    if not any(len(one.score) and len(one.object_image) for one in ranked):
        raise DataError("no class has both objects and detections", expected="at least one")
    everything = np.ones(len(truth.images), bool)
    folds = list(_folds(detected))
    single = _single(ranked, everything)
    classes, curves = {}, {}
    for name, one in zip(truth.categories.values(), ranked, strict=True):
        classes[name] = _of_class(one, aim, single, folds, len(truth.images))
        curves[name] = _thinned(_curve(one))
    return ThresholdAnalysis(
        classes=classes,
        chosen=f"{aim} at IoU {iou:g}",
        interval="thresholds of each fold alone, lowest and highest"
        if folds
        else f"{SAMPLES} samples of the images, 5th and 95th percentile",
        source=detected.source,
        iou=iou,
        single=single,
        held_out=_held_out(ranked, folds) if len(folds) > 1 and aim.figure == "f1" else None,
        curves=curves,
    )


def _by_class(detected: Detected, iou: float) -> list[_Ranked]:
    truth = detected.truth
    categories = tuple(truth.categories)
    found = detection_table(detected.detections, truth.images, categories)
    objects = object_table(truth.annotations, truth.images, categories)
    matches = match(found, objects, lowest_iou=iou)
    ranked = []
    for label in range(len(categories)):
        mine = np.flatnonzero((found.label == label) & matches.counted)
        mine = mine[np.argsort(-found.score[mine], kind="stable")]
        to_find = matches.counts & (objects.label == label)
        correct = matches.correct[mine]
        ranked.append(
            _Ranked(found.score[mine], correct, found.image[mine], objects.image[to_find])
        )
    return ranked


def _folds(detected: Detected) -> Iterator[Bools]:
    """Yields (I,) True for the images of each fold; nothing where there are none."""
    fold_of = np.array([detected.fold_of_image.get(key, -1) for key in detected.truth.images])
    for fold in sorted(set(detected.fold_of_image.values())):
        yield fold_of == fold


def _of_class(
    one: _Ranked, aim: Aim, single: float, folds: list[Bools], num_images: int
) -> ClassThreshold:
    curve = _curve(one)
    if not len(curve.score) or not len(one.object_image):
        what = "no objects" if len(curve.score) else "no detections"
        figures, score = (nan, nan, nan), single
        low, high, remark = nan, nan, f"{what}: the best threshold for all classes"
    else:
        place, remark = _choose(curve, aim)
        figures, score = tuple(curve.figures[place].tolist()), float(curve.score[place])
        low, high = _interval(one, curve, aim, folds, num_images)
    counts = (len(one.object_image), len(one.score))
    return ClassThreshold(score, *figures, low, high, *counts, remark=remark)


def _curve(one: _Ranked, weight: Ints | None = None) -> _Curve:
    """Returns the figures at each threshold; an image counts ``weight`` (I,) times.

    Between two scores a threshold lies in the middle, so that rounding does not matter.
    """
    times = np.ones(len(one.score)) if weight is None else weight[one.image].astype(float)
    objects = len(one.object_image) if weight is None else weight[one.object_image].sum()
    last = np.flatnonzero(np.diff(one.score, append=-1.0))  # of equal scores
    right, all_ = np.cumsum(times * one.correct)[last], np.cumsum(times)[last]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right / all_, right / objects
        f1 = 2 * right / (all_ + objects)
    figures = np.nan_to_num(np.stack([precision, recall, f1], axis=1))
    score = one.score[last]
    return _Curve((score + np.append(score[1:], score[-1:])) / 2, figures)


def _choose(curve: _Curve, aim: Aim) -> tuple[int, str]:
    """Returns the place of the threshold in a curve, and what it does not reach, in words."""
    precision, recall, f1 = curve.figures.T
    if aim.figure == "f1":
        return int(np.argmax(f1 > f1.max() - _TIE)), ""
    values = precision if aim.figure == "precision" else recall
    reached = np.flatnonzero(values >= aim.value - _TIE)
    if len(reached):  # as many objects as possible with this precision, as few mistakes at all
        return int(reached[-1] if aim.figure == "precision" else reached[0]), ""
    best = int(np.flatnonzero(values > values.max() - _TIE)[-1 if aim.figure == "precision" else 0])
    return best, f"{aim} is not reached: {values[best]:.3f} at most"


def _interval(
    one: _Ranked, curve: _Curve, aim: Aim, folds: list[Bools], num_images: int
) -> tuple[float, float]:
    """Returns the lowest and highest threshold of the folds; of one set, of samples of it."""
    if folds:
        parts = [one.part(images) for images in folds]
        curves = [_curve(part) for part in parts if len(part.score) and len(part.object_image)]
        scores = [float(part.score[_choose(part, aim)[0]]) for part in curves]
        return (min(scores), max(scores)) if scores else (nan, nan)
    rng, samples = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        weight = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        if weight[one.object_image].any():
            samples.append(curve.score[_choose(_curve(one, weight), aim)[0]])
    low, high = np.percentile(samples, PERCENTILES).tolist() if samples else (nan, nan)
    return low, high


# --- one threshold for all classes ---------------------------------------------------------------


def _f1_at(one: _Ranked, scores: Floats) -> Floats:
    """Returns the (S,) F1 at thresholds (S,); NaN of a class without objects."""
    if not len(one.object_image):
        return np.full(len(scores), nan)
    count = np.searchsorted(-one.score, -scores, side="right")
    right = np.append(0, np.cumsum(one.correct))[count]
    return np.asarray(2 * right / (count + len(one.object_image)))


def _single(ranked: list[_Ranked], images: Bools) -> float:
    """Returns the threshold with the largest mean F1 of the classes with objects in some images."""
    parts = [one.part(images) for one in ranked]
    scores = np.unique(np.concatenate([[0.5], *(_curve(one).score for one in parts)]))
    known = [_f1_at(one, scores) for one in parts if len(one.object_image)]
    return float(scores[int(np.argmax(np.mean(known, axis=0)))]) if known else 0.5


def _held_out(ranked: list[_Ranked], folds: list[Bools]) -> HeldOut:
    """Returns F1 of each fold with thresholds of the others: per class, and one for all."""
    own, shared = [], []
    for fold in folds:
        single = _single(ranked, ~fold)
        for one in ranked:
            there, here = one.part(~fold), one.part(fold)
            if not len(here.object_image):
                continue
            score = single
            if len(there.score) and len(there.object_image):
                curve = _curve(there)
                score = float(curve.score[_choose(curve, Aim())[0]])
            own.append(_f1_at(here, np.array([score]))[0])
            shared.append(_f1_at(here, np.array([single]))[0])
    return HeldOut(float(np.mean(own)), float(np.mean(shared)))


def _thinned(curve: _Curve) -> tuple[tuple[float, float, float, float], ...]:
    rows = np.column_stack([curve.score, curve.figures])
    places = np.unique(np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int))
    return tuple(map(tuple, rows[places].round(5).tolist())) if len(rows) else ()
