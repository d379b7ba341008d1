"""The figures of Pascal VOC: AP at one IoU, over the whole curve and at eleven recalls.

As in the development kit (VOCdevkit, ``VOCevaldet.m``): detections of a class go by descending
score; each looks at the one box of its image and class that it overlaps most. Is that difficult,
the detection does not count; is it free and the IoU high enough, the detection is right; all
others are wrong. Difficult boxes are not counted as boxes to find.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fldet.evaluation.figures import VocFigures
from fldet.evaluation.ground_truth import GroundTruth

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.int8]

RIGHT, WRONG, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class VocRule:
    """What counts as found.

    With ``plus_one`` a box from x1 to x2 is x2 - x1 + 1 wide, as in the development kit, where
    corners are numbers of pixels; else x2 - x1, as in COCO.
    """

    iou_thr: float = 0.5  # lowest IoU of a right detection with its box
    plus_one: bool = True

    def __str__(self) -> str:
        width = "x2 - x1 + 1" if self.plus_one else "x2 - x1"
        return f"fldet, VOC at IoU {self.iou_thr:g}, width {width}"


@dataclass(frozen=True)
class MatchedImage:
    """The detections of one image, boxes left out: 13 bytes each."""

    categories: npt.NDArray[np.int64]  # (N,) ids
    scores: npt.NDArray[np.float32]  # (N,)
    marks: Marks  # (N,) 1 right, 0 wrong, -1 ignored


def _xyxy(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def boxes_by_image(truth: GroundTruth) -> dict[Hashable, dict[int, tuple[Floats, Marks]]]:
    """Returns for each image and category boxes (M, 4) xyxy and whether each is ignored (M,)."""
    lists: dict[Hashable, dict[int, list[list[float]]]]
    lists = {image: defaultdict(list) for image in truth.images}
    for one in truth.annotations:
        row = [*_xyxy(one["bbox"]), one["iscrowd"]]
        lists[one["image_id"]][one["category_id"]].append(row)
    return {
        image: {
            category: ((rows := np.array(entries, float))[:, :4], rows[:, 4].astype(np.int8))
            for category, entries in by_category.items()
        }
        for image, by_category in lists.items()
    }


def match_image(
    boxes_xyxy: Floats,
    scores: Floats,
    categories: npt.NDArray[np.int64],
    truth: Mapping[int, tuple[Floats, Marks]],
    rule: VocRule,
) -> MatchedImage:
    """Returns which detections of one image are right.

    Boxes are (N, 4) in pixels, scores and category ids (N,). ``truth`` has, by category, boxes (M,
    4) and whether each is ignored (M,).
    """
    marks = np.zeros(len(scores), np.int8)
    for category in np.unique(categories).tolist():
        if category in truth:
            rows = np.flatnonzero(categories == category)
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            marks[rows] = _match(boxes_xyxy[rows], *truth[category], rule)
    return MatchedImage(categories, scores.astype(np.float32), marks)


def _match(found: Floats, boxes: Floats, ignored: Marks, rule: VocRule) -> Marks:
    """Returns the marks of (N, 4) detections of one class, best score first."""
    overlaps = _iou(found, boxes, float(rule.plus_one))
    nearest = overlaps.argmax(axis=1)
    taken = np.zeros(len(boxes), bool)
    marks = np.full(len(found), WRONG, np.int8)
    for row in np.flatnonzero(overlaps.max(axis=1) >= rule.iou_thr):
        box = nearest[row]
        if ignored[box]:
            marks[row] = IGNORED
        elif not taken[box]:
            taken[box], marks[row] = True, RIGHT
    return marks


def _iou(a: Floats, b: Floats, extra: float) -> Floats:
    """Returns (N, M) IoU; ``extra`` is added to every width and height."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.clip(high - low + extra, 0, None).prod(axis=2)
    areas = [(box[:, 2:] - box[:, :2] + extra).prod(axis=1) for box in (a, b)]
    union = areas[0][:, None] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def summarize(
    truth: GroundTruth, matched: Mapping[Hashable, MatchedImage], rule: VocRule
) -> VocFigures:
    """Returns the figures of the images in ``matched``, no others.

    Among equal scores the order is that of the image ids, then of the detections.
    """
    images = [matched[image] for image in truth.images if image in matched]
    categories, scores, marks = (
        np.concatenate([getattr(one, name) for one in images] or [np.zeros(0)])
        for name in ("categories", "scores", "marks")
    )
    counts = _count_boxes(truth, matched)
    curves = {}
    for category, name in truth.categories.items():
        chosen = (categories == category) & (marks != IGNORED)
        order = np.argsort(-scores[chosen], kind="stable")
        curves[name] = average_precisions(marks[chosen][order] == RIGHT, counts[category])
    per_class, per_class_11 = ({name: both[i] for name, both in curves.items()} for i in (0, 1))
    return VocFigures(
        summary={"mAP": _mean(per_class.values()), "mAP_11": _mean(per_class_11.values())},
        per_class=per_class,
        num_images=len(images),
        num_detections=len(scores),
        engine=str(rule),
        per_class_11=per_class_11,
    )


def _count_boxes(truth: GroundTruth, images: Mapping[Hashable, object]) -> Counter[int]:
    return Counter(
        one["category_id"]
        for one in truth.annotations
        if one["image_id"] in images and not one["iscrowd"]
    )


def average_precisions(right: npt.NDArray[np.bool_], num_boxes: int) -> tuple[float, float]:
    """Returns AP over the whole curve (VOC 2010) and at eleven recalls (VOC 2007).

    Precision at a recall is the highest at that recall or above; NaN without boxes to find.
    ``right`` (N,) says which detections are, best score first.
    """
    if num_boxes == 0:
        return math.nan, math.nan
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    area = float(highest[:-1][right].sum() / num_boxes)
    # In whole numbers: a recall of 3/10 reaches 0.3, whatever 0.1 + 0.1 + 0.1 is in binary.
    first = np.searchsorted(10 * hits, num_boxes * np.arange(11))
    return area, float(highest[first].mean())


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
