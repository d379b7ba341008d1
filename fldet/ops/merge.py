"""The detections of many views of one picture as those of the picture, each object once.

docs/large-pictures.md states the rule. In short, for each class:

1. what several looks at one region see is one detection, of their mean;
2. a part of an object goes where another slice sees more of the object;
3. the parts of an object that no slice holds are joined: where two slices overlap, both see the
   same of it;
4. what several slices see whole is one detection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SAME_IOU = 0.5  # from here on two boxes are of one object
# A box reaches beyond the border of a slice by more pixels than this.
_BEYOND = 1.0


@dataclass(frozen=True)
class Seen:
    """What one view shows, moved to where it is in the picture.

    Attributes:
        region: (4,) xyxy of the view in pixels of the picture.
        is_slice: whether it is a part of the picture.
        boxes: (N, 4) xyxy in pixels of the picture.
        scores: (N,).
        labels: (N,) whole numbers.
    """

    region: Sequence[float]
    is_slice: bool
    boxes: Array
    scores: Array
    labels: Array


@dataclass(frozen=True)
class _Found:
    """Detections in a row, with the number of the region and of the view that each is from."""

    boxes: Array
    scores: Array
    labels: Array
    region: Array
    view: Array
    cut: Array  # (N, 4): whether a side touches a border of its slice inside the picture

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Array) -> "_Found":
        return _Found(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def merge_views(
    seen: Sequence[Seen], size: tuple[int, int], tolerance: float = 1.0, *, agnostic: bool = False
) -> tuple[Array, Array, Array]:
    """Returns the boxes, scores and labels of a picture, best scores first.

    A detection has the best score of the regions that it is made of, and in a region the mean over
    all looks at it. One view alone stays as it is.

    Args:
        seen: one for each view, empty ones too.
        size: width and height of the picture in pixels.
        tolerance: so many pixels from the border of a slice a box touches it.
        agnostic: whether boxes suppress those of other classes in the end.

    Returns:
        (M, 4) float32 xyxy inside the picture, (M,) float32, (M,) int64.
    """
    keys = list(dict.fromkeys((tuple(one.region), one.is_slice) for one in seen))
    regions = np.array([region for region, _ in keys], float).reshape(-1, 4)
    is_slice = np.array([of_slice for _, of_slice in keys], bool)
    inner = _inner_borders(regions, is_slice, size)
    found = _in_a_row(seen, keys)
    found = replace(found, cut=_touching(found.boxes, regions, inner, found.region, tolerance))
    found = _of_looks(found, seen, keys)
    found = found[~_seen_better(found, regions, is_slice, inner, tolerance)]
    found = _joined(found, regions)
    found = _fused(found, _pairs_of_regions(found, regions))
    limits = np.array([*size, *size], np.float32)
    order = np.argsort(-found.scores, kind="stable")
    if agnostic:
        order = order[best_across_classes(found.boxes[order])]
    return (
        found.boxes[order].astype(np.float32).clip(0, limits),
        found.scores[order].astype(np.float32),
        found.labels[order].astype(np.int64),
    )


def _in_a_row(seen: Sequence[Seen], keys: list[Any]) -> _Found:
    counts = [len(one.scores) for one in seen]
    numbers = [keys.index((tuple(one.region), one.is_slice)) for one in seen]
    boxes = [np.asarray(one.boxes, float).reshape(-1, 4) for one in seen]
    return _Found(
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        scores=np.concatenate([np.zeros(0), *(np.asarray(one.scores, float) for one in seen)]),
        labels=np.concatenate([np.zeros(0, int), *(np.asarray(one.labels, int) for one in seen)]),
        region=np.repeat(np.array(numbers, int), counts),
        view=np.repeat(np.arange(len(seen)), counts),
        cut=np.zeros((sum(counts), 4), bool),
    )


def _inner_borders(regions: Array, is_slice: Array, size: tuple[int, int]) -> Array:
    """Returns (R, 4): which sides of a region are borders inside the picture."""
    picture = np.array([0, 0, *size])
    inner: Array = (regions != picture) & is_slice[:, None]
    return inner


def _touching(boxes: Array, regions: Array, inner: Array, number: Any, tolerance: float) -> Array:
    """Returns (N, 4): which sides of boxes lie at or beyond an inner border of their region."""
    gap = boxes - regions[number]
    gap[:, 2:] *= -1
    touching: Array = (gap <= tolerance) & inner[number]
    return touching


def _seen_better(
    found: _Found, regions: Array, is_slice: Array, inner: Array, tolerance: float
) -> Array:
    """Returns (N,): of which detections another slice holds all, and is cut off on fewer sides.

    The slice need not have found the object: the part would be a wrong box all the same.
    """
    better = np.zeros(len(found), bool)
    from_slice = is_slice[found.region]
    for number in np.flatnonzero(is_slice):
        region = regions[number]
        inside = (found.boxes[:, :2] >= region[:2] - _BEYOND).all(axis=1)
        inside &= (found.boxes[:, 2:] <= region[2:] + _BEYOND).all(axis=1)
        cut = _touching(found.boxes, regions, inner, np.full(len(found), number), tolerance)
        fewer = (cut <= found.cut).all(axis=1) & (cut.sum(axis=1) < found.cut.sum(axis=1))
        # the whole picture is looked at for what no slice holds
        better |= inside & np.where(from_slice, fewer, ~cut.any(axis=1))
    return better


def _joined(found: _Found, regions: Array) -> _Found:
    """Returns detections with the parts of each object in one box."""
    pairs = sorted(_pairs_of_parts(found, regions))
    group = np.arange(len(found))
    members: dict[int, list[int]] = {}
    places: dict[int, set[int]] = {}
    for _, _, i, j in pairs:
        one, other = int(group[i]), int(group[j])
        first, second = (places.get(x, {int(found.region[x])}) for x in (one, other))
        if one == other or first & second:  # of an object a slice sees one part
            continue
        places[one] = first | second
        members[one] = members.get(one, [one]) + members.pop(other, [other])
        group[members[one]] = one
    if not members:
        return found
    boxes, scores, cut = found.boxes.copy(), found.scores.copy(), found.cut.copy()
    region, kept = found.region.copy(), np.ones(len(found), bool)
    for rows in members.values():
        kept[rows] = False
        best = max(rows, key=lambda row: float(found.scores[row]))
        whole = [row for row in rows if not found.cut[row].any()]
        if whole:
            box = found.boxes[max(whole, key=lambda row: float(found.scores[row]))]
        else:
            box = np.concatenate(
                [found.boxes[rows, :2].min(axis=0), found.boxes[rows, 2:].max(axis=0)]
            )
        kept[best], boxes[best], cut[best], region[best] = True, box, False, -1
    return replace(found, boxes=boxes, scores=scores, cut=cut, region=region)[kept]


def _pairs_of_parts(found: _Found, regions: Array) -> Iterator[tuple[float, float, int, int]]:
    """Yields two parts of one object: how unlike they and their scores are, and their rows.

    Where both slices look they have the same box, and where one reaches beyond the slice of the
    other, that one is cut off.
    """
    for one, other, rows, columns in _of_overlapping(found, regions):
        low = np.maximum(regions[one][:2], regions[other][:2])
        high = np.minimum(regions[one][2:], regions[other][2:])
        shared = np.concatenate([low, high])
        a, b = found[rows], found[columns]
        iou = ious(_clipped(a.boxes, shared), _clipped(b.boxes, shared))
        beyond_b, beyond_a = _beyond(a.boxes, regions[other]), _beyond(b.boxes, regions[one])
        fits: Any = (beyond_b[:, None] <= b.cut[None]).all(axis=2)
        fits &= (beyond_a[None] <= a.cut[:, None]).all(axis=2)
        fits &= np.any(beyond_b, axis=1)[:, None] | np.any(beyond_a, axis=1)[None]
        fits &= (iou >= SAME_IOU) & (a.labels[:, None] == b.labels)
        for i, j in np.argwhere(fits):
            difference = abs(float(a.scores[i] - b.scores[j]))
            yield -round(float(iou[i, j]), 2), difference, int(rows[i]), int(columns[j])


def _beyond(boxes: Array, region: Array) -> Array:
    """Returns (N, 4): on which sides boxes reach beyond a region."""
    gap = boxes - region
    gap[:, 2:] *= -1
    beyond: Array = gap < -_BEYOND
    return beyond


def _clipped(boxes: Array, region: Array) -> Array:
    low, high = np.tile(region[:2], 2), np.tile(region[2:], 2)
    clipped: Array = boxes.clip(low, high)
    return clipped


def _of_overlapping(found: _Found, regions: Array) -> Iterator[tuple[int, int, Array, Array]]:
    """Yields two regions that overlap, and the rows of the detections in each, where they do."""
    rows = [np.flatnonzero(found.region == number) for number in range(len(regions))]
    for one in range(len(regions)):
        low = np.maximum(regions[one, :2], regions[one + 1 :, :2])
        high = np.minimum(regions[one, 2:], regions[one + 1 :, 2:])
        for other in one + 1 + np.flatnonzero((low < high).all(axis=1)):
            shared = np.concatenate([low[other - one - 1], high[other - one - 1]])
            first, second = (
                own[_reach_into(found.boxes[own], shared)] for own in (rows[one], rows[other])
            )
            if len(first) and len(second):
                yield one, int(other), first, second


def _reach_into(boxes: Array, region: Array) -> Array:
    """Returns (N,): which boxes have a part of a region."""
    reach: Array = np.concatenate([boxes[:, :2] < region[2:], boxes[:, 2:] > region[:2]], axis=1)
    return np.all(reach, axis=1)


def _pairs_of_looks(found: _Found) -> Iterator[tuple[int, int]]:
    """Yields the rows of two detections of one object by two looks at one region."""
    for number in np.unique(found.region):
        rows = np.flatnonzero(found.region == number)
        if len(np.unique(found.view[rows])) > 1:
            pairs = _alike(found[rows], found[rows])
            first, second = rows[pairs[:, 0]], rows[pairs[:, 1]]
            of_two = (first < second) & (found.view[first] != found.view[second])
            yield from zip(first[of_two].tolist(), second[of_two].tolist(), strict=True)


def _pairs_of_regions(found: _Found, regions: Array) -> Iterator[tuple[int, int]]:
    """Yields the rows of two detections of one object in two regions, joined ones too."""
    joined = np.flatnonzero(found.region == -1)
    others = np.flatnonzero(found.region != -1)
    groups = [(rows, columns) for *_, rows, columns in _of_overlapping(found, regions)]
    for rows, columns in [*groups, (joined, others)]:
        for i, j in _alike(found[rows], found[columns]):
            yield int(rows[i]), int(columns[j])


def _alike(one: _Found, other: _Found) -> Array:
    """Returns (P, 2): the rows of boxes of one class that overlap enough to be one."""
    same = one.labels[:, None] == other.labels
    return np.argwhere((ious(one.boxes, other.boxes) >= SAME_IOU) & same)


def _of_looks(found: _Found, seen: Sequence[Seen], keys: list[Any]) -> _Found:
    """Returns what all looks at each region see, each object once.

    Of each look its best box counts. The box is their mean by score; the score is the mean over all
    looks, with 0 for those that do not see the object.
    """
    looks = np.bincount([keys.index((tuple(one.region), one.is_slice)) for one in seen])
    boxes, scores = found.boxes.copy(), found.scores / looks[found.region]
    kept = np.ones(len(found), bool)
    for row, taken in _groups(found, _pairs_of_looks(found)):
        kept[taken] = False
        best: dict[int, int] = {}
        for one in (row, *taken):
            best.setdefault(int(found.view[one]), one)
        rows = [*best.values()]
        total = found.scores[rows].sum()
        boxes[row] = found.scores[rows] @ found.boxes[rows] / total if total > 0 else boxes[row]
        scores[row] = total / looks[found.region[row]]
    return replace(found, boxes=boxes, scores=scores)[kept]


def _fused(found: _Found, pairs: Iterator[tuple[int, int]]) -> _Found:
    """Returns detections where each has taken in those that are paired with it, best score first.

    A side of its box that is cut off is that of the best one which is not cut off there, and the
    outermost where all are.
    """
    boxes, cut, kept = found.boxes.copy(), found.cut.copy(), np.ones(len(found), bool)
    for row, taken in _groups(found, pairs):
        kept[taken] = False
        rows = [row, *taken]
        boxes[row] = _best_sides(found.boxes[rows], found.cut[rows])
        cut[row] = found.cut[rows].all(axis=0)
    return replace(found, boxes=boxes, cut=cut)[kept]


def _groups(found: _Found, pairs: Iterator[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Yields detections by falling score, each with those paired with it that are not taken yet."""
    partners: dict[int, list[int]] = {}
    for i, j in pairs:
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    order = sorted(partners, key=lambda row: -float(found.scores[row]))
    rank = {row: place for place, row in enumerate(order)}
    done: set[int] = set()
    for row in order:
        if row not in done:
            taken = sorted((one for one in partners[row] if one not in done), key=rank.__getitem__)
            done.update((row, *taken))
            yield row, taken


def _best_sides(boxes: Array, cut: Array) -> Array:
    """Returns the box (4,) of several (N, 4) of one object, the best one first; see ``_fused``."""
    first = cut.argmin(axis=0)
    outermost = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    sides: Array = np.where(cut.all(axis=0), outermost, boxes[first, np.arange(4)])
    return sides


def best_across_classes(boxes: Array) -> Array:
    """Returns the rows of (N, 4) boxes, best first, that none before them suppresses."""
    kept: list[int] = []
    for row, box in enumerate(boxes):
        if not kept or ious(box[None], boxes[kept]).max() <= SAME_IOU:
            kept.append(row)
    return np.array(kept, int)


def ious(one: Array, other: Array) -> Array:
    """Returns the (N, M) IoUs of boxes (N, 4) and (M, 4), 0 where one has no area."""
    low = np.maximum(one[:, None, :2], other[:, :2])
    high = np.minimum(one[:, None, 2:], other[:, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1] - shared
    result: Array = np.where(union > 0, shared / np.where(union > 0, union, 1), 0)
    return result
