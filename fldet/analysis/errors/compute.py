"""Which kind of mistake costs how much AP: kinds, confusions, curves, calibration, worst images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fldet.analysis.errors.collect import TestedData
from fldet.analysis.errors.kinds import KINDS, MISSED, Judged, ap50_after, judge
from fldet.analysis.errors.result import (
    BINS,
    Calibration,
    DrawnBox,
    DrawnImage,
    ErrorAnalysis,
    Kind,
)
from fldet.errors import DataError
from fldet.evaluation.matching import (
    AREAS,
    Floats,
    Ints,
    assign,
    detection_table,
    each_image,
    match,
    object_table,
    precision_curves,
)


def find_errors(
    tested: TestedData,
    *,
    score_thr: float = 0.3,
    num_worst: int = 10,
    num_random: int = 0,
    lowest_score: float | None = None,
) -> ErrorAnalysis:
    """Returns what is wrong with detections.

    Args:
        tested: detections and the truth that they are held against.
        score_thr: lowest score of the confusion matrix and the pictures.
        num_worst: images to keep that cost most, fewer if fewer have mistakes.
        num_random: images to keep that are drawn from the others, the same in every call.
        lowest_score: of the detections that are kept with their image; None is ``score_thr``.

    Raises:
        DataError: a score is not in [0, 1].
    """
    truth, detections = tested.truth, tested.detections
    _check_scores(detections)
    num_classes = len(truth.categories)
    judged = judge(
        detection_table(detections, truth.images, tuple(truth.categories)),
        object_table(truth.annotations, truth.images, tuple(truth.categories)),
    )
    ap50 = ap50_after(judged, ())
    kinds = {
        name: _kind(judged, index, ap50_after(judged, (index,)) - ap50, score_thr)
        for index, name in enumerate(KINDS)
    }
    cost = _cost_of_images(judged, kinds, len(truth.images))
    worst, sample = _choose_images(cost, num_worst, num_random)
    lowest = score_thr if lowest_score is None else lowest_score
    return ErrorAnalysis(
        annotations=tested.annotation_file.name,
        results=tested.detections_file.name,
        images=len(truth.images),
        objects=int(judged.matches.counts.sum()),
        detections=len(judged.kind),
        ap50=ap50,
        kinds=kinds,
        classes=tuple(truth.categories.values()),
        curves=_curves(judged, num_classes),
        score_thr=score_thr,
        confusion=_confusion(judged, score_thr, num_classes),
        calibration=_calibration(judged),
        worst=_drawn_images(tested, judged, cost, worst, lowest),
        image_dir=None if tested.image_dir is None else str(tested.image_dir.resolve()),
        others=_drawn_images(tested, judged, cost, sample, lowest),
    )


def _check_scores(detections: Sequence[Mapping[str, Any]]) -> None:
    for index, one in enumerate(detections):
        if not 0 <= one["score"] <= 1:
            raise DataError(
                f"detection {index} has the score {one['score']!r}",
                expected="probabilities in [0, 1]",
            )


def _kind(judged: Judged, index: int, gain: float, score_thr: float) -> Kind:
    if index == MISSED:
        count = int((judged.object_kind == MISSED).sum())
        return Kind(count, count, gain)
    scores = judged.detections.score[judged.kind == index]
    return Kind(len(scores), int((scores >= score_thr).sum()), gain)


def _cost_of_images(judged: Judged, kinds: Mapping[str, Kind], num_images: int) -> Floats:
    """Returns the (I,) share of each image in the gains of all kinds."""
    cost = np.zeros(num_images)
    for index, kind in enumerate(kinds.values()):
        wrong = judged.kind == index
        image, weight = judged.detections.image[wrong], judged.detections.score[wrong]
        if index == MISSED:
            image = judged.objects.image[judged.object_kind == MISSED]
            weight = np.ones(len(image))
        if weight.sum() > 0 and not math.isnan(kind.ap50_gain):
            share = weight / weight.sum() * kind.ap50_gain
            cost += np.bincount(image, share, minlength=num_images)
    return cost


def _curves(judged: Judged, num_classes: int) -> dict[str, tuple[tuple[float, ...], ...]]:
    found, objects = judged.detections, judged.objects
    curves = {}
    for area in AREAS:
        matches = match(found, objects, area)
        keep = matches.counted
        to_find = np.bincount(objects.label[matches.counts], minlength=num_classes)
        by_class = precision_curves(
            found.label[keep], found.score[keep], matches.correct[keep], to_find
        )
        curves[area] = tuple(() if curve is None else tuple(curve.tolist()) for curve in by_class)
    return curves


def _confusion(judged: Judged, score_thr: float, num_classes: int) -> tuple[tuple[int, ...], ...]:
    """Returns counts of true by predicted class; every object and detection is in it once.

    Correct detections come first. The others, in the order of their scores, take the free object
    of any class with the largest IoU, from 0.5 on; without one they are on the background.
    """
    found, objects, matches = judged.detections, judged.objects, judged.matches
    shown = matches.counted & (found.score >= score_thr)
    taken = np.where(matches.correct & shown, matches.found, -1)
    for image in each_image(found, objects):
        d, g = image.detections, image.objects
        free = matches.counts[g].copy()
        free[taken[d][taken[d] >= 0] - g.start] = False
        rows = np.flatnonzero(shown[d] & (taken[d] < 0))
        rows = rows[np.argsort(-found.score[d][rows], kind="stable")]
        places = assign(image.iou[rows] * free, free, np.zeros(len(free), bool))
        taken[rows + d.start] = np.where(places >= 0, places + g.start, -1)
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    true = np.append(objects.label, num_classes)[taken[shown]]  # -1 takes the last: background
    np.add.at(matrix, (true, found.label[shown]), 1)
    missed = matches.counts.copy()
    missed[taken[taken >= 0]] = False
    matrix[:-1, -1] = np.bincount(objects.label[missed], minlength=num_classes)
    return tuple(map(tuple, matrix.tolist()))


def _calibration(judged: Judged) -> Calibration:
    counted = judged.matches.counted
    score, correct = judged.detections.score[counted], judged.matches.correct[counted]
    place = np.clip((score * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights, minlength=BINS) for weights in (score, correct)]
    with np.errstate(invalid="ignore"):
        mean_score, precision = (values / counts for values in sums)
    return Calibration(
        tuple(counts.tolist()),
        tuple(mean_score.tolist()),
        tuple(precision.tolist()),
        float(np.abs(sums[0] - sums[1]).sum() / len(score)) if len(score) else math.nan,
    )


# --- boxes of the images that are kept -----------------------------------------------------------


def _choose_images(cost: Floats, num_worst: int, num_random: int) -> tuple[Ints, Ints]:
    """Returns the places of the costliest images, and of some of the others in their order."""
    costliest = np.argsort(-cost, kind="stable")
    worst = costliest[:num_worst][cost[costliest[:num_worst]] > 0]
    others = np.setdiff1d(costliest, worst)
    return worst, np.sort(np.random.default_rng(0).permutation(others)[:num_random])


def _drawn_images(
    tested: TestedData, judged: Judged, cost: Floats, places: Ints, lowest_score: float
) -> tuple[DrawnImage, ...]:
    """Returns images by their places, with the detections from a score on."""
    return tuple(
        DrawnImage(
            image_id=(image_id := tested.truth.images[place]),
            file_name=tested.file_names.get(image_id),
            cost=float(cost[place]),
            objects=_drawn_objects(judged, place),
            detections=_drawn_detections(judged, place, lowest_score),
        )
        for place in places.tolist()
    )


def _drawn_objects(judged: Judged, image: int) -> tuple[DrawnBox, ...]:
    objects, matches = judged.objects, judged.matches
    mine = np.flatnonzero(matches.correct & (judged.detections.image == image))
    score_of = dict(
        zip(matches.found[mine].tolist(), judged.detections.score[mine].tolist(), strict=True)
    )
    return tuple(
        DrawnBox(
            box_xywh=tuple(objects.boxes_xywh[i].tolist()),
            label=int(objects.label[i]),
            state="crowd" if objects.crowd[i] else _state(judged.object_kind[i]),
            score=score_of.get(i),
        )
        for i in np.flatnonzero(objects.image == image).tolist()
    )


def _drawn_detections(judged: Judged, image: int, lowest_score: float) -> tuple[DrawnBox, ...]:
    found = judged.detections
    shown = (found.image == image) & (found.score >= lowest_score)
    first = int(np.searchsorted(judged.objects.image, image))  # sorted by image
    target = np.where(judged.matches.correct, judged.matches.found, judged.target)
    return tuple(
        DrawnBox(
            box_xywh=tuple(found.boxes_xywh[i].tolist()),
            label=int(found.label[i]),
            state="ignored" if judged.matches.ignored[i] else _state(judged.kind[i]),
            score=float(found.score[i]),
            target=int(target[i]) - first if target[i] >= 0 else None,
        )
        for i in np.flatnonzero(shown).tolist()
    )


def _state(kind: np.int64) -> str:
    return KINDS[kind] if kind >= 0 else "correct"
