"""Which detection found which object, and average precision from it, as COCO has it.

Flat arrays over a whole data set; images are gone through one by one, so that nothing larger than
the boxes of one image squared is ever held. Per image and class the 100 best detections count.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FOREGROUND = 0.5  # IoU from which a detection has found an object, unless told otherwise
MAX_DETECTIONS = 100  # of an image and class
RECALLS = np.linspace(0, 1, 101)  # where COCO reads a curve
# Smallest and largest area of an object in square pixels, both included; COCO's names.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2)}
AREAS["large"] = (96.0**2, 1e10)


@dataclass(frozen=True)
class Detections:
    """Detections that count, sorted by image, label and falling score."""

    image: Ints  # (N,) index of the image
    label: Ints  # (N,) index of the class
    boxes_xywh: Floats  # (N, 4) pixels
    score: Floats  # (N,) in [0, 1]


@dataclass(frozen=True)
class Objects:
    """Ground truth, sorted by image and label."""

    image: Ints  # (M,) index of the image
    label: Ints  # (M,) index of the class
    boxes_xywh: Floats  # (M, 4) pixels
    area: Floats  # (M,) square pixels
    crowd: Bools  # (M,) True for a region that is not one object
    row: Ints  # (M,) place in the annotations that the table was made of


@dataclass(frozen=True)
class ImageBoxes:
    """What is in one image."""

    detections: slice  # their places in ``Detections``
    objects: slice  # their places in ``Objects``
    iou: Floats  # (D, G) IoU; for a crowd region the share of the detection's area that is inside
    same: Bools  # (D, G) True where the classes are the same


@dataclass(frozen=True)
class Matches:
    """What each detection found, when only objects of a range of areas count."""

    found: Ints  # (N,) place of the object or crowd region in ``Objects``, -1 for none
    # (N,) True where a detection is neither right nor wrong: it lies on a crowd region of its
    # class, found an object of another size, or found none and has another size
    ignored: Bools
    counts: Bools  # (M,) True for the objects that are to be found

    @property
    def correct(self) -> Bools:
        """(N,) True for true positives."""
        return (self.found >= 0) & ~self.ignored

    @property
    def counted(self) -> Bools:
        """(N,) True for true and false positives."""
        return ~self.ignored


# --- tables --------------------------------------------------------------------------------------


def detection_table(
    detections: Sequence[Mapping[str, Any]],
    images: Sequence[Hashable],
    categories: Sequence[int],
) -> Detections:
    """Returns the detections that count: of each image and class the 100 with the best scores.

    Among equal scores the first ones count. ``images`` are ids in COCO's order, sorted: it decides
    among equal scores. ``categories`` are ids by label.
    """
    image, label = _places(detections, images, categories)
    score = np.array([one["score"] for one in detections], float)
    order = np.lexsort((-score, label, image))  # stable, as COCO's sorting is
    group = np.stack([image[order], label[order]])
    starts = np.flatnonzero(np.diff(group, axis=1, prepend=-1).any(axis=0))
    lengths = np.diff(np.append(starts, len(order)))
    rank = np.arange(len(order)) - np.repeat(starts, lengths)
    order = order[rank < MAX_DETECTIONS]
    return Detections(image[order], label[order], _boxes(detections)[order], score[order])


def object_table(
    annotations: Sequence[Mapping[str, Any]],
    images: Sequence[Hashable],
    categories: Sequence[int],
) -> Objects:
    """Returns the ground truth; ``area`` and ``iscrowd`` must be there."""
    image, label = _places(annotations, images, categories)
    area = np.array([one["area"] for one in annotations], float)
    crowd = np.array([one["iscrowd"] for one in annotations], bool)
    order = np.lexsort((label, image))
    boxes = _boxes(annotations)[order]
    return Objects(image[order], label[order], boxes, area[order], crowd[order], order)


def _places(
    entries: Sequence[Mapping[str, Any]], images: Sequence[Hashable], categories: Sequence[int]
) -> tuple[Ints, Ints]:
    image_of = {key: index for index, key in enumerate(images)}
    label_of = {key: index for index, key in enumerate(categories)}
    image = np.array([image_of[one["image_id"]] for one in entries], np.int64)
    label = np.array([label_of[one["category_id"]] for one in entries], np.int64)
    return image, label


def _boxes(entries: Sequence[Mapping[str, Any]]) -> Floats:
    return np.array([one["bbox"] for one in entries], float).reshape(-1, 4)


# --- matching ------------------------------------------------------------------------------------


def each_image(detections: Detections, objects: Objects) -> Iterator[ImageBoxes]:
    """Yields the images that have a detection, in order, with the overlaps of their boxes."""
    for image in np.unique(detections.image):
        d = slice(*np.searchsorted(detections.image, [image, image + 1]).tolist())
        g = slice(*np.searchsorted(objects.image, [image, image + 1]).tolist())
        iou = overlaps(detections.boxes_xywh[d], objects.boxes_xywh[g], objects.crowd[g])
        yield ImageBoxes(d, g, iou, detections.label[d, None] == objects.label[g])


def overlaps(boxes_xywh: Floats, others_xywh: Floats, crowd: Bools) -> Floats:
    """Returns the (D, G) IoU of boxes; for a crowd column intersection over the box's own area."""
    lows = np.maximum(boxes_xywh[:, None, :2], others_xywh[None, :, :2])
    ends, other_ends = (boxes[:, :2] + boxes[:, 2:] for boxes in (boxes_xywh, others_xywh))
    highs = np.minimum(ends[:, None], other_ends[None])
    shared = np.clip(highs - lows, 0, None).prod(axis=2)
    area, other_area = (boxes[:, 2] * boxes[:, 3] for boxes in (boxes_xywh, others_xywh))
    union = np.where(crowd, area[:, None], area[:, None] + other_area - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match(
    detections: Detections, objects: Objects, area: str = "all", lowest_iou: float = FOREGROUND
) -> Matches:
    """Returns what each detection found among the objects of its class, of a key of ``AREAS``.

    In the order of falling scores each detection takes the free object with the largest IoU, from
    ``lowest_iou`` on. One that finds none may lie on a crowd region, which is never used up, or on
    an object of another size.
    """
    smallest, largest = AREAS[area]
    counts = ~objects.crowd & (objects.area >= smallest) & (objects.area <= largest)
    found = np.full(len(detections.score), -1, np.int64)
    for image in each_image(detections, objects):
        g = image.objects
        taken = assign(image.iou * image.same, counts[g], objects.crowd[g], lowest_iou)
        found[image.detections] = np.where(taken >= 0, taken + g.start, -1)
    own_area = detections.boxes_xywh[:, 2] * detections.boxes_xywh[:, 3]
    ignored = (own_area < smallest) | (own_area > largest)
    hit = found >= 0
    ignored[hit] = ~counts[found[hit]]
    return Matches(found, ignored, counts)


def assign(iou: Floats, counts: Bools, crowd: Bools, lowest_iou: float = FOREGROUND) -> Ints:
    """Returns the (D,) columns that the rows take one after the other, -1 for none.

    ``iou`` is (D, G), 0 where a row may not take a column. Columns in ``counts`` (G,) are preferred
    whatever the overlap; those in ``crowd`` (G,) can be taken again and again.
    """
    taken = np.full(len(iou), -1, np.int64)
    free = np.ones(iou.shape[1], bool)
    for row in np.flatnonzero((iou >= lowest_iou).any(axis=1)):
        columns = np.flatnonzero((iou[row] >= lowest_iou) & free).tolist()
        if columns:
            # Among equals the last column wins, as in COCO.
            best = max(columns, key=lambda column: (counts[column], iou[row, column], column))
            taken[row] = best
            free[best] = crowd[best]
    return taken


# --- average precision ---------------------------------------------------------------------------


def precision_curve(score: Floats, correct: Bools, num_objects: int) -> Floats:
    """Returns the (101,) best precision at each recall of ``RECALLS`` or above, 0 beyond the last.

    ``score`` (N,) is of one class, in the order of the images: it decides among equal scores.
    ``correct`` (N,) is True for true positives; ``num_objects`` is at least 1.
    """
    hits = np.cumsum(correct[np.argsort(-score, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hits / num_objects, RECALLS, side="left")
    return np.append(envelope, 0.0)[place]


def precision_curves(
    label: Ints, score: Floats, correct: Bools, num_objects: Ints
) -> list[Floats | None]:
    """Returns the curve of each class, None for a class without objects.

    Label, score and correct are (N,) of the detections, ``num_objects`` is (K,) by class.
    """
    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(len(num_objects) + 1))
    parts = (order[start:end] for start, end in pairwise(bounds.tolist()))
    return [
        precision_curve(score[part], correct[part], count) if count else None
        for part, count in zip(parts, num_objects.tolist(), strict=True)
    ]
