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
ADDED = 10  # objects, found as those of the mean class, that each class has besides its own
SHARED = "one threshold for all classes: scores of their own served the folds less well"
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


@dataclass(frozen=True)
class _Mean:
    """F1 with one threshold for all classes, the mean of the classes with objects."""

    score: Floats  # (S,) thresholds, rising
    f1: Floats  # (S,)

    @property
    def best(self) -> float:
        """The highest of the thresholds that are equally good, as for a class alone."""
        return float(self.score[np.flatnonzero(self.f1 >= self.f1.max() * (1 - _TIE))[-1]])

    def at(self, scores: Floats) -> Floats:
        """Returns the (T,) F1 at the thresholds (T,), or at the next that is known."""
        places = np.searchsorted(self.score, scores)
        return np.asarray(self.f1[np.minimum(places, len(self.f1) - 1)])


def find_thresholds(detected: Detected, aim: Aim, *, iou: float = 0.5) -> ThresholdAnalysis:
    """Returns the threshold of each class.

    F1 of few objects says little. So what is largest at the threshold of a class is F1 of its own
    objects and of ``ADDED`` more, found as those of the mean class. A class without objects or
    detections gets the best threshold for all classes together, and so do all of them where that
    has served the folds better: each with what the others chose.

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
    folds = list(_folds(detected))
    mean = _mean_f1(ranked)
    is_shared = aim.figure == "f1" and not _is_better_by_class(ranked, folds)
    means = [_mean_f1([one.part(images) for one in ranked]) for images in folds]
    classes, curves = {}, {}
    for name, one in zip(truth.categories.values(), ranked, strict=True):
        parts = [(one.part(images), of_fold) for images, of_fold in zip(folds, means, strict=True)]
        classes[name] = _of_class(one, aim, mean, parts, len(truth.images), is_shared=is_shared)
        curves[name] = _thinned(_curve(one))
    return ThresholdAnalysis(
        classes=classes,
        chosen=f"{aim} at IoU {iou:g}",
        interval="thresholds of each fold alone, lowest and highest"
        if folds
        else f"{SAMPLES} samples of the images, 5th and 95th percentile",
        source=detected.source,
        iou=iou,
        single=mean.best,
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
    one: _Ranked,
    aim: Aim,
    mean: _Mean,
    folds: list[tuple[_Ranked, _Mean]],
    num_images: int,
    *,
    is_shared: bool,
) -> ClassThreshold:
    curve = _curve(one)
    if is_shared and len(curve.score) and len(one.object_image):
        figures, score = _figures_at(one, mean.best), mean.best
        bests = [of_fold.best for _, of_fold in folds]
        low, high, remark = min(bests), max(bests), SHARED
    elif not len(curve.score) or not len(one.object_image):
        what = "no objects" if len(curve.score) else "no detections"
        figures, score = (nan, nan, nan), mean.best
        low, high, remark = nan, nan, f"{what}: the best threshold for all classes"
    else:
        place, remark = _choose(curve, aim, len(one.object_image), mean)
        figures, score = tuple(curve.figures[place].tolist()), float(curve.score[place])
        if folds:
            low, high = _range_of_folds(folds, aim)
        else:
            low, high = _range_of_samples(one, curve, aim, mean, num_images)
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


def _choose(curve: _Curve, aim: Aim, objects: float, mean: _Mean) -> tuple[int, str]:
    """Returns the place of the threshold in a curve, and what it does not reach, in words."""
    precision, recall, f1 = curve.figures.T
    if aim.figure == "f1":
        steadied = objects * f1 + ADDED * mean.at(curve.score)
        return int(np.argmax(steadied >= steadied.max() * (1 - _TIE))), ""
    values = precision if aim.figure == "precision" else recall
    reached = np.flatnonzero(values >= aim.value - _TIE)
    if len(reached):  # as many objects as possible with this precision, as few mistakes at all
        return int(reached[-1] if aim.figure == "precision" else reached[0]), ""
    best = int(np.flatnonzero(values > values.max() - _TIE)[-1 if aim.figure == "precision" else 0])
    return best, f"{aim} is not reached: {values[best]:.3f} at most"


def _range_of_folds(folds: list[tuple[_Ranked, _Mean]], aim: Aim) -> tuple[float, float]:
    """Returns the lowest and the highest threshold that a fold alone would have."""
    scores = []
    for part, mean in folds:
        curve = _curve(part)
        if len(part.score) and len(part.object_image):
            place, _ = _choose(curve, aim, len(part.object_image), mean)
            scores.append(float(curve.score[place]))
    return (min(scores), max(scores)) if scores else (nan, nan)


def _range_of_samples(
    one: _Ranked, curve: _Curve, aim: Aim, mean: _Mean, num_images: int
) -> tuple[float, float]:
    """Returns two percentiles of the thresholds of samples of the images."""
    rng, scores = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        weight = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        objects = weight[one.object_image].sum()
        if objects:
            place, _ = _choose(_curve(one, weight), aim, objects, mean)
            scores.append(curve.score[place])
    low, high = np.percentile(scores, PERCENTILES).tolist() if scores else (nan, nan)
    return low, high


# --- one threshold for all classes ---------------------------------------------------------------


def _figures_at(one: _Ranked, score: float) -> tuple[float, float, float]:
    """Returns precision, recall and F1 of a class at a threshold."""
    count = int(np.searchsorted(-one.score, -score, side="right"))
    right, objects = int(one.correct[:count].sum()), len(one.object_image)
    return right / max(1, count), right / objects, 2 * right / (count + objects)


def _f1_at(one: _Ranked, scores: Floats) -> Floats:
    """Returns the (S,) F1 at thresholds (S,)."""
    count = np.searchsorted(-one.score, -scores, side="right")
    right = np.append(0, np.cumsum(one.correct))[count]
    return np.asarray(2 * right / (count + len(one.object_image)))


def _mean_f1(ranked: list[_Ranked]) -> _Mean:
    scores = np.unique(np.concatenate([[0.5], *(_curve(one).score for one in ranked)]))
    known = [_f1_at(one, scores) for one in ranked if len(one.object_image)]
    return _Mean(scores, np.mean(known, axis=0) if known else (scores == 0.5).astype(float))


def _held_out(ranked: list[_Ranked], folds: list[Bools]) -> HeldOut:
    """Returns F1 of each fold with thresholds of the others: as they choose them, and one for all.

    They choose between a threshold for each class and one for all as the whole does, by themselves.
    """
    own, shared = [], []
    for fold in folds:
        others = [one.part(~fold) for one in ranked]
        rest = [images for images in folds if images is not fold]
        of_fold = _f1_by_class(ranked, others, fold)
        shared += of_fold[1]
        own += of_fold[0] if _is_better_by_class(others, rest) else of_fold[1]
    return HeldOut(float(np.mean(own)), float(np.mean(shared)))


def _is_better_by_class(ranked: list[_Ranked], folds: list[Bools]) -> bool:
    """Returns whether thresholds of the classes serve each fold as well as one, or that is open.

    Each fold has those of the others; with less than two there is nothing to choose by.
    """
    own, shared = [], []
    for fold in folds if len(folds) > 1 else ():
        others = [
            one.part(np.logical_or.reduce([f for f in folds if f is not fold])) for one in ranked
        ]
        of_fold = _f1_by_class(ranked, others, fold)
        own += of_fold[0]
        shared += of_fold[1]
    return not own or bool(np.mean(own) >= np.mean(shared) - _TIE)


def _f1_by_class(
    ranked: list[_Ranked], others: list[_Ranked], fold: Bools
) -> tuple[list[float], list[float]]:
    """Returns F1 of the classes in a fold with the thresholds of others: of each class, and one."""
    own, shared = [], []
    mean = _mean_f1(others)
    for one, there in zip(ranked, others, strict=True):
        here = one.part(fold)
        if not len(here.object_image):
            continue
        score = mean.best
        if len(there.score) and len(there.object_image):
            curve = _curve(there)
            score = curve.score[_choose(curve, Aim(), len(there.object_image), mean)[0]]
        own.append(float(_f1_at(here, np.array([score]))[0]))
        shared.append(float(_f1_at(here, np.array([mean.best]))[0]))
    return own, shared


def _thinned(curve: _Curve) -> tuple[tuple[float, float, float, float], ...]:
    rows = np.column_stack([curve.score, curve.figures])
    places = np.unique(np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int))
    return tuple(map(tuple, rows[places].round(5).tolist())) if len(rows) else ()
