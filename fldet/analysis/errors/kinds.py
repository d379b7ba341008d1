"""The six kinds of mistake of TIDE (Bolya et al., ECCV 2020) and what each costs.

For a false positive, ``own`` is its largest IoU with an object of its class and ``other`` that with
an object of another class; crowd regions are no objects. The first line that fits is its kind:

    localisation    0.1 <= own < 0.5
    classification  other >= 0.5
    duplicate       own >= 0.5; the object was taken by a detection with a better score
    background      own and other <= 0.1
    both            the rest: 0.1 < other < 0.5, wrong class and wrong place

An object that no detection found is *missed*, unless a classification or localisation mistake
points to it: repairing that one finds it. The paper leaves open what comes first; this is the order
of its authors' tool, tidecv. On perturbed COCO truth the counts are the same, and the gains within
0.03 points of 100, but for two rules:

    Where mistakes of both kinds point to an object, tidecv repairs the better-scored one only, so
    that repairing the other kind alone does not find the object. Here it does.
    A class all of whose objects were missed drops out of tidecv's mean when that is repaired. Here
    it counts 1 if it has no detection.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fldet.evaluation.matching import (
    FOREGROUND,
    Bools,
    Detections,
    Floats,
    ImageBoxes,
    Ints,
    Matches,
    Objects,
    each_image,
    match,
    precision_curves,
)

BACKGROUND = 0.1  # IoU up to which a detection shows nothing at all
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, ON_BACKGROUND, MISSED = range(6)
NO_MISTAKE = -1


@dataclass(frozen=True)
class Judged:
    """Detections and objects with the kind of every mistake."""

    detections: Detections  # those that count
    objects: Objects  # ground truth
    matches: Matches  # of all sizes
    kind: Ints  # (N,) index in ``KINDS`` of each false positive, -1 for other detections
    # (N,) place in ``objects`` of the object that a classification or localisation mistake points
    # to, else -1
    target: Ints
    # (M,) ``MISSED`` for an object that is missed, the kind of the best-scored mistake that points
    # to it for others not found, -1 for found objects and crowd regions
    object_kind: Ints


def judge(detections: Detections, objects: Objects) -> Judged:
    """Returns the kind of every mistake."""
    matches = match(detections, objects)
    kind = np.full(len(detections.score), NO_MISTAKE, np.int64)
    target = np.full(len(kind), -1, np.int64)
    for image in each_image(detections, objects):
        d = image.detections
        kind[d], target[d] = _kinds_in_image(image, objects.crowd[image.objects])
    wrong = matches.counted & ~matches.correct
    kind[~wrong] = NO_MISTAKE
    target[~wrong] = -1
    object_kind = np.full(len(objects.crowd), MISSED, np.int64)
    best = _best_for_each_object(target, detections.score)
    object_kind[target[best]] = kind[best]
    object_kind[objects.crowd | _is_found(matches)] = NO_MISTAKE
    return Judged(detections, objects, matches, kind, target, object_kind)


def _kinds_in_image(image: ImageBoxes, crowd: Bools) -> tuple[Ints, Ints]:
    """Returns (D,) kinds, as if every detection were wrong, and the objects pointed to."""
    own_iou = image.iou * (image.same & ~crowd)
    other_iou = image.iou * (~image.same & ~crowd)
    own, other = own_iou.max(axis=1, initial=0), other_iou.max(axis=1, initial=0)
    kind = np.select(
        [
            (own >= BACKGROUND) & (own < FOREGROUND),
            other >= FOREGROUND,
            own >= FOREGROUND,
            other <= BACKGROUND,
        ],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, ON_BACKGROUND],
        default=BOTH,
    )
    target = np.full(len(kind), -1, np.int64)
    for one, iou in ((LOCALISATION, own_iou), (CLASSIFICATION, other_iou)):
        rows = kind == one
        target[rows] = iou[rows].argmax(axis=1) + image.objects.start if rows.any() else -1
    return kind, target


def _is_found(matches: Matches) -> Bools:
    found = np.zeros(len(matches.counts), bool)
    found[matches.found[matches.correct]] = True
    return found


def _best_for_each_object(target: Ints, score: Floats) -> Ints:
    """Returns the detection with the best score for each object that one points to."""
    order = np.argsort(-score, kind="stable")
    order = order[target[order] >= 0]
    _, first = np.unique(target[order], return_index=True)
    return order[first]


def ap50_after(judged: Judged, repaired: Collection[int]) -> float:
    """Returns AP50 when mistakes of these kinds are repaired; of none, COCO's AP50 itself.

    A classification mistake gets the right class, a localisation mistake the right box; where the
    object is found already, or by a better-scored repaired one, it is removed instead. The other
    false positives are removed, and missed objects are no longer counted.

    It is the mean over the classes with objects, in [0, 1]; NaN without any. A class all of whose
    objects were missed counts 1 if no detection of it is left, and 0 otherwise.
    """
    detections, objects, counts = judged.detections, judged.objects, judged.matches.counts
    label, correct, keep = _repair(judged, repaired)
    num_classes = int(max(label.max(initial=-1), objects.label.max(initial=-1))) + 1
    left = counts & ~((judged.object_kind == MISSED) & (MISSED in repaired))
    had, to_find, detected = (
        np.bincount(labels, minlength=num_classes)
        for labels in (objects.label[counts], objects.label[left], label[keep])
    )
    curves = precision_curves(label[keep], detections.score[keep], correct[keep], to_find)
    values = [
        float(detected[k] == 0) if curve is None else curve.mean()
        for k, curve in enumerate(curves)
        if had[k]
    ]
    return float(np.mean(values)) if values else float("nan")


def _repair(judged: Judged, repaired: Collection[int]) -> tuple[Ints, Bools, Bools]:
    """Returns (N,) classes, which detections are correct, and which remain."""
    chosen = np.isin(judged.kind, list(repaired))
    free = chosen & (judged.target >= 0)
    free[free] = ~_is_found(judged.matches)[judged.target[free]]
    mended = _best_for_each_object(np.where(free, judged.target, -1), judged.detections.score)
    label, correct = judged.detections.label.copy(), judged.matches.correct
    label[mended] = judged.objects.label[judged.target[mended]]
    correct[mended] = True
    return label, correct, judged.matches.counted & (~chosen | correct)
