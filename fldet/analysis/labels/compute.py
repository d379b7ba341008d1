"""How likely each annotation is wrong, from what models say that did not see it.

The score of a detection is turned into the share of detections with such a score that lie on an
annotated object of their class, p. The scores of the kinds are probabilities by Bayes' rule, if one
annotation in twenty is wrong: evidence that a share q of right annotations would show too makes
``odds(q)`` = 0.05 / (0.05 + q). For an annotated box, ``own`` is the largest p of the detections of
its class on it (IoU from 0.5).

    missing    odds((1 - p) / p) of a detection without a box, less the more it overlaps one
    spurious   odds(share of the boxes of its class that is not found), times 1 - the largest p near
    moved      of a detection of its class with an IoU below 0.5 odds((1 - p) / p), from 0.5 on
               p 2 (1 - IoU) odds(share of the boxes that fit their detection no better)
    class      of the surest detection of another class on it, odds((1 - p) / p), and no more than
               odds(share of the boxes of its class with one as sure), times 1 - own
    doubled    the IoU with another box, from 0.5 to 0.8 as 0 to 1

A box gets the kind with the highest score; a picture the probability that one of its findings or
more is right, were they independent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from fldet.analysis.labels.result import Finding, JudgedImage, LabelAnalysis
from fldet.data.annotations import id_of
from fldet.errors import DataError
from fldet.evaluation.detected import Detected
from fldet.evaluation.matching import (
    FOREGROUND,
    Bools,
    Floats,
    Ints,
    detection_table,
    match,
    object_table,
    overlaps,
)

NEAR = 0.1  # IoU from which a detection and a box may be of one object
LOWEST = 0.05  # score of the findings that are kept
WRONG = 0.05  # share of annotations that are wrong, before they are looked at
_SAME = (0.5, 0.8)  # IoU of two boxes from which, and up to which, they are more and more alike
_SEEN = 0.3  # IoU from which a detection says that there is something


@dataclass(frozen=True)
class _Scene:
    """The boxes of an image."""

    image: Mapping[str, Any]  # its entry
    boxes: Floats  # (G, 4) annotated, xywh in pixels
    label: Ints  # (G,) place of the class
    ids: list[Any]  # of the annotations
    found: Floats  # (D, 4) detected
    found_label: Ints  # (D,)
    found_score: Floats  # (D,)
    p: Floats  # (D,) probability that it is right
    iou: Floats  # (D, G)


def find_label_errors(detected: Detected) -> LabelAnalysis:
    """Returns annotations that are probably wrong.

    Raises:
        DataError: there is no detection, or no annotation.
    """
    scenes = list(_scenes(detected))
    if not any(len(one.boxes) for one in scenes) or not any(len(one.found) for one in scenes):
        raise DataError("no detection or no annotation to compare")
    usual = _Usual.of(scenes, len(detected.truth.categories))
    names = list(detected.truth.categories.values())
    by_image = [(one, _findings(one, usual, names)) for one in scenes]
    findings = [found for _, some in by_image for found in some]
    images = [
        JudgedImage(
            image_id=id_of(one.image["id"]),
            file=_file(detected, one.image),
            score=float(1 - np.prod([1 - found.score for found in some])),
            findings=len(some),
        )
        for one, some in by_image
    ]
    return LabelAnalysis(
        source=detected.source,
        annotations=sum(len(one.boxes) for one in scenes),
        findings=tuple(sorted(findings, key=lambda one: -one.score)),
        images=tuple(sorted(images, key=lambda one: -one.score)),
    )


def _file(detected: Detected, image: Mapping[str, Any]) -> str:
    try:
        return str(detected.file_of(image))
    except DataError:
        return ""


def _scenes(detected: Detected) -> Iterator[_Scene]:
    """Yields the boxes of each image; detections on crowd regions are left out."""
    truth = detected.truth
    categories = tuple(truth.categories)
    table = detection_table(detected.detections, truth.images, categories)
    objects = object_table(truth.annotations, truth.images, categories)
    matches = match(table, objects)
    p = np.zeros(len(table.score))
    counted = matches.counted
    p[counted] = calibrated(table.score[counted], matches.correct[counted])
    ids = _annotation_ids(detected)
    by_id: dict[Any, Any] = {id_of(one["id"]): one for one in detected.content["images"]}
    for place, key in enumerate(truth.images):
        d = slice(*np.searchsorted(table.image, [place, place + 1]).tolist())
        g = slice(*np.searchsorted(objects.image, [place, place + 1]).tolist())
        crowd = objects.crowd[g]
        iou = overlaps(table.boxes_xywh[d], objects.boxes_xywh[g], crowd)
        here = ~((iou >= FOREGROUND) & crowd).any(axis=1)
        yield _Scene(
            image=by_id[key],
            boxes=objects.boxes_xywh[g][~crowd],
            label=objects.label[g][~crowd],
            ids=[ids[row] for row in objects.row[g][~crowd].tolist()],
            found=table.boxes_xywh[d][here],
            found_label=table.label[d][here],
            found_score=table.score[d][here],
            p=p[d][here],
            iou=iou[here][:, ~crowd],
        )


def _annotation_ids(detected: Detected) -> list[Any]:
    """Returns the id of each annotation of the truth; its place in the file where it has none."""
    known = set(detected.truth.images)
    entries = enumerate(detected.content["annotations"])
    return [one.get("id", i) for i, one in entries if id_of(one["image_id"]) in known]


def calibrated(score: Floats, correct: Bools) -> Floats:
    """Returns the (N,) share of right detections with such a score, which rises with it."""
    order = np.argsort(score, kind="stable")
    p = np.empty(len(score))
    # one more that is wrong, at the top: of a few that are all right nothing is certain
    p[order] = isotonic_regression(np.append(correct[order], False).astype(float)).x[:-1]
    return p


def odds(share: float) -> float:
    """Returns how likely an annotation is wrong that looks as this share of right ones do."""
    return WRONG / (WRONG + share)


# --- what is usual in the data -------------------------------------------------------------------


@dataclass(frozen=True)
class _Usual:
    """What is known of boxes that are right, as nearly all are."""

    found: Floats  # (K,) share of the boxes of a class near which something is detected
    fits: Floats  # IoU of boxes with their detections, sorted
    others: list[Floats]  # of each class, p of what is of another class on its boxes, sorted

    @classmethod
    def of(cls, scenes: list[_Scene], num_classes: int) -> "_Usual":
        """Returns what the boxes of all images say."""
        hits, counts, fits = np.zeros(num_classes), np.zeros(num_classes), [np.zeros(0)]
        others: list[list[float]] = [[] for _ in range(num_classes)]
        for one in scenes:
            if not len(one.boxes):
                continue
            seen = (one.p[:, None] * (one.iou >= _SEEN)).max(axis=0, initial=0)
            hits += np.bincount(one.label, seen, minlength=num_classes)
            counts += np.bincount(one.label, minlength=num_classes)
            places = _own(one)
            fits.append(one.iou[places, np.arange(len(places))][places >= 0])
            surest = _others(one).max(axis=0, initial=0)
            for label, p in zip(one.label.tolist(), surest.tolist(), strict=True):
                others[label].append(p)
        by_class = [np.sort(p) for p in others]
        return cls(hits / np.maximum(counts, 1), np.sort(np.concatenate(fits)), by_class)

    def as_sure(self, label: int, p: float) -> float:
        """Returns on which share of the other boxes of a class another class is as sure."""
        sorted_p = self.others[label]
        as_sure = len(sorted_p) - int(np.searchsorted(sorted_p, p, side="left"))
        return (as_sure - 1) / max(1, len(sorted_p) - 1)

    def better(self, iou: float) -> float:
        """Returns the share of boxes that fit their detection better than with this IoU."""
        return 1 - float(np.searchsorted(self.fits, iou, side="right")) / max(1, len(self.fits))


def _others(one: _Scene, boxes: slice = slice(None)) -> Floats:
    """Returns (D, G) p of the detections that lie on a box and are of another class, else 0."""
    is_other = one.found_label[:, None] != one.label[boxes]
    return one.p[:, None] * (is_other & (one.iou[:, boxes] >= FOREGROUND))


def _own(one: _Scene) -> Ints:
    """Returns the (G,) place of the detection that is meant by each box, -1 for none.

    It is of the same class, overlaps the box, and overlaps no other box of the class more.
    """
    if not len(one.found) or not len(one.boxes):
        return np.full(len(one.boxes), -1)
    same = one.iou * (one.found_label[:, None] == one.label)
    mine = (same >= NEAR) & (same == same.max(axis=1, keepdims=True))
    worth = np.where(mine, one.p[:, None] * same, 0)
    return np.where(worth.max(axis=0) > 0, worth.argmax(axis=0), -1)


# --- findings ------------------------------------------------------------------------------------


def _findings(one: _Scene, usual: _Usual, names: list[str]) -> list[Finding]:
    """Returns what is probably wrong in an image: the likeliest of each box, and what lacks."""
    own = _own(one)
    boxes = [_of_box(one, g, int(own[g]), usual, names) for g in range(len(one.boxes))]
    return [
        found
        for found in (*boxes, *_doubled(one, names), *_missing(one, own, names))
        if found is not None and found.score >= LOWEST
    ]


def _of_box(one: _Scene, g: int, own: int, usual: _Usual, names: list[str]) -> Finding | None:
    """Returns the likeliest of the kinds spurious, moved and class."""
    iou, same = one.iou[:, g], one.found_label == one.label[g]
    right = (one.p * (same & (iou >= FOREGROUND))).max(initial=0)
    seen = (one.p * (iou >= _SEEN)).max(initial=0)
    candidates = [("spurious", odds(1 - usual.found[one.label[g]]) * (1 - float(seen)), -1)]
    if own >= 0:
        candidates.append(("moved", _moved(one.p[own], float(iou[own]), usual), own))
    other = _others(one, slice(g, g + 1))[:, 0]
    if other.max(initial=0) > 0:
        d = int(other.argmax())
        usually = odds(usual.as_sure(int(one.label[g]), float(other[d])))
        likely = min(_odds_without(other[d]), usually)
        candidates.append(("class", likely * (1 - float(right)), d))
    kind, score, d = max(candidates, key=lambda candidate: candidate[1])
    return _finding(one, names, kind, score, (g,), d)


def _moved(p: float, iou: float, usual: _Usual) -> float:
    if iou < FOREGROUND:
        return _odds_without(p)
    return float(p) * 2 * (1 - iou) * odds(1 - usual.better(iou))


def _odds_without(p: float) -> float:
    """Returns the odds of a detection that is right with p, where no such box is."""
    return odds(float((1 - p) / p)) if p > 0 else 0.0


def _doubled(one: _Scene, names: list[str]) -> Iterator[Finding]:
    """Yields pairs of boxes that are nearly the same."""
    iou = np.triu(overlaps(one.boxes, one.boxes, np.zeros(len(one.boxes), bool)), 1)
    low, high = _SAME
    for g, h in zip(*np.nonzero(iou > low), strict=True):
        score = min(1.0, float(iou[g, h] - low) / (high - low))
        yield _finding(one, names, "doubled", score, (int(g), int(h)), -1)


def _missing(one: _Scene, own: Ints, names: list[str]) -> Iterator[Finding]:
    """Yields detections without a box, each thing once."""
    free = np.ones(len(one.found), bool)
    free[own[own >= 0]] = False
    overlap = one.iou.max(axis=1, initial=0)
    mutual = overlaps(one.found, one.found, np.zeros(len(one.found), bool))
    for d in np.argsort(-one.p, kind="stable").tolist():
        if free[d] and overlap[d] < FOREGROUND:
            free[mutual[d] >= FOREGROUND] = False
            score = _odds_without(one.p[d]) * (1 - float(overlap[d]) / FOREGROUND)
            yield _finding(one, names, "missing", score, (), d)


def _finding(
    one: _Scene, names: list[str], kind: str, score: float, boxes: tuple[int, ...], d: int
) -> Finding:
    """Returns a finding of some boxes and a detection, -1 for none."""
    other, label, own_score = None, "", nan
    if d >= 0:
        other, label = one.found[d], names[one.found_label[d]]
        own_score = float(one.found_score[d])
    elif len(boxes) == 2:
        other, label = one.boxes[boxes[1]], names[one.label[boxes[1]]]
    return Finding(
        kind=kind,
        score=min(1.0, max(0.0, score)),
        image_id=id_of(one.image["id"]),
        annotation_ids=tuple(one.ids[g] for g in boxes),
        box_xywh=tuple(one.boxes[boxes[0]].tolist()) if boxes else None,
        label=names[one.label[boxes[0]]] if boxes else "",
        other_xywh=None if other is None else tuple(other.tolist()),
        other_label=label,
        other_score=own_score,
    )
