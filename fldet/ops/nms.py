"""Greedy non-maximum suppression on whatever is installed: compiled mmcv, torchvision, or fldet.

Every backend gets the boxes in one order, computed here, so all keep the same boxes, ties
included. The rule for ties: of boxes with equal scores the one with the lower index comes first.
(Stock ``mmcv.ops.nms`` has another: it follows torch's unstable sort. ``_ext.nms`` copies that.)
"""

import functools
import importlib.machinery
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fldet._compat import eager
from fldet.errors import UnavailableError

Array = np.ndarray[Any, np.dtype[Any]]
Backend = Literal["mmcv", "torchvision", "fldet"]
BACKENDS: tuple[Backend, ...] = ("mmcv", "torchvision", "fldet")  # in order of preference

_HINTS: dict[str, str] = {
    "mmcv": "pip install --no-build-isolation onedl-mmcv (compiles it, about 20 minutes)",
    "torchvision": "pip install the torchvision that belongs to the installed torch",
}

_BLOCK = 512  # boxes compared with each other at once
_CPU_BLOCK = 128  # the same on a CPU, where a pair costs more than a call
_MAX_PAIRS = 4_000_000  # pairs of boxes held in memory at once


def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    offset: int = 0,
    backend: Backend | None = None,
) -> Tensor:
    """Returns the indices of the boxes that greedy non-maximum suppression keeps.

    A box goes if its IoU with a kept box of higher score is above the threshold, compared in
    float32. An IoU that is NaN suppresses nothing. On a CPU all backends agree to the last bit.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels; computed in float32 whatever the type. An
            inverted box (x2 < x1 or y2 < y1) has no overlap with any other.
        scores: (N,), any real type. Equal scores: the lower index comes first; NaN comes before
            every number, as in torch's sort.
        iou_threshold: in [0, 1]; 1 keeps everything.
        offset: 0 if widths are x2 - x1, 1 if the last pixel counts (x2 - x1 + 1).
        backend: the implementation to use; None takes the first that works.

    Returns:
        (K,) int64 indices in descending score order, on the device of ``boxes``. Empty in, empty
        out.

    Raises:
        ValueError: a shape, the threshold or the offset is wrong, or torchvision is asked for an
            offset of 1, which it cannot do.
        UnavailableError: ``backend`` is not installed or does not work.
    """
    _check(boxes, scores, iou_threshold, offset)
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    if backend is None:
        backend = nms_backend(boxes.device.type)
        if backend == "torchvision" and offset != 0:
            backend = "fldet"
    else:
        require(backend, "nms", usable=_nms_works(backend, boxes.device.type))
    order = scores.detach().sort(dim=0, descending=True, stable=True).indices
    keep = _IMPLEMENTATIONS[backend](boxes.detach()[order].float(), iou_threshold, offset)
    return order[keep]


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float,
    *,
    max_keep: int | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Returns the indices of the boxes kept by suppression within each class.

    As in mmcv and torchvision, each class is first moved to a place of its own by an offset of
    ``label * (largest coordinate + 1)``, then one call does all. The sum is rounded to float32,
    so an IoU within about 1e-4 of the threshold may fall on either side. Unlike there, negative
    coordinates widen the offset, so that classes never touch, and coordinates that are not finite
    do not disturb the other boxes.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,); ties as in ``nms``.
        labels: (N,) integer class of each box.
        iou_threshold: in [0, 1].
        max_keep: largest number of boxes to return, over all classes; None means all.
        backend: as in ``nms``.

    Returns:
        (K,) int64 indices in descending score order. Empty in, empty out.

    Raises:
        ValueError: a shape is wrong, or ``iou_threshold`` or ``max_keep`` is out of range.
        UnavailableError: ``backend`` is not installed or does not work.
    """
    _check(boxes, scores, iou_threshold, offset=0)
    if labels.shape != scores.shape:
        raise ValueError(
            f"expected labels of shape {tuple(scores.shape)}, got {tuple(labels.shape)}"
        )
    if max_keep is not None and max_keep < 0:
        raise ValueError(f"max_keep must be None or >= 0, got {max_keep}")
    keep = nms(move_classes_apart(boxes, labels), scores, iou_threshold, backend=backend)
    return keep if max_keep is None else keep[:max_keep]


def move_classes_apart(boxes: Tensor, labels: Tensor) -> Tensor:
    """Returns (N, 4) boxes in float32, each class moved to a place where it meets no other."""
    if len(boxes) == 0:
        return boxes
    boxes = boxes.detach().float()
    finite = torch.where(boxes.isfinite(), boxes, 0.0)
    extent = finite.max() - finite.min().clamp(max=0.0) + 1
    return boxes + (labels.to(boxes) * extent)[:, None]


def nms_backend(device: str = "cpu") -> Backend:
    """Returns the first of ``BACKENDS`` whose suppression works on this type of device."""
    return next(backend for backend in BACKENDS if _nms_works(backend, device))


def keep_without_mmcv(boxes: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Returns the indices kept of boxes in descending score order, by torchvision or by fldet.

    For the stand-in of mmcv's operator, which the detectors call. Arguments as ``keep_in_order``.
    """
    works = offset == 0 and _nms_works("torchvision", boxes.device.type)
    return _IMPLEMENTATIONS["torchvision" if works else "fldet"](boxes, iou_threshold, offset)


def require(backend: str, operator: str, *, usable: bool) -> None:
    """Checks that a backend asked for by name is one, and works here."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be None or one of {', '.join(BACKENDS)}, got {backend!r}")
    if not usable:
        raise UnavailableError(
            f"{operator}: the backend {backend!r} is not installed or does not work here",
            expected="backend=None takes the first that works",
            hint=_HINTS[backend],
        )


def works(backend: str, run: Callable[[], Tensor], expected: list[Any]) -> bool:
    """Returns whether a backend is there and ``run()``, which uses it, gives ``expected``.

    A package built for another torch may fail in any way, so any exception means no.
    """
    if backend not in BACKENDS or backend == "fldet":
        return backend == "fldet"
    if backend == "mmcv" and not has_compiled_mmcv():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(run().tolist() == expected)
        except Exception:
            return False


@functools.cache
def has_compiled_mmcv() -> bool:
    """Returns whether mmcv has its compiled operators, without importing it."""
    package = importlib.util.find_spec("mmcv")
    if package is None or package.submodule_search_locations is None:
        return False
    locations = package.submodule_search_locations
    # PathFinder alone, because fldet's own finder would answer with its fallback.
    return importlib.machinery.PathFinder.find_spec("mmcv._ext", locations) is not None


@functools.cache
def _nms_works(backend: str, device: str) -> bool:
    def keep_two_equal_boxes() -> Tensor:
        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 2, device=device)
        return _IMPLEMENTATIONS[backend](boxes, 0.5, 0)

    return works(backend, keep_two_equal_boxes, [0])


def _check(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes of shape (N, 4), got {tuple(boxes.shape)}")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"expected scores of shape ({len(boxes)},), got {tuple(scores.shape)}")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in [0, 1], got {iou_threshold}")
    if offset not in (0, 1):
        raise ValueError(f"offset must be 0 or 1, got {offset}")


# The implementations: (N, 4) float32 boxes in the order of suppression, threshold, offset, to the
# kept indices, ascending.


def _keep_with_mmcv(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    from mmcv import _ext

    keep: Tensor = _ext.nms(
        boxes, _falling_scores(boxes), iou_threshold=float(iou_threshold), offset=offset
    )
    return keep


def _keep_with_torchvision(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    if offset != 0:
        raise ValueError(f"torchvision's nms knows offset 0 only, got {offset}")
    from torchvision.ops import nms as torchvision_nms

    # It compares a float32 IoU with a double: round the threshold as the others do.
    keep: Tensor = torchvision_nms(boxes, _falling_scores(boxes), float(np.float32(iou_threshold)))
    return keep


def _falling_scores(boxes: Tensor) -> Tensor:
    """Returns (N,) scores without ties, exact in float32 up to 16 million boxes."""
    return torch.arange(len(boxes), 0, -1, dtype=torch.float32, device=boxes.device)


@eager
def keep_in_order(boxes: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Returns the indices that greedy suppression keeps of boxes in descending score order.

    Two algorithms with the same result. On a CPU, a sweep along x lists the pairs that overlap;
    it is fast because the classes of ``batched_nms`` lie side by side. Where many boxes overlap,
    and on other devices, blocks of boxes are compared with all that follow. Memory stays below
    a few hundred MiB for any number of boxes.

    The boxes are (N, 4) float32, the (K,) indices ascending. The threshold is any number, rounded
    to float32; ``offset`` is added to each width and height.
    """
    keep = None
    # Below 0 boxes suppress each other without overlap, which the sweep does not see.
    if boxes.device.type == "cpu" and iou_threshold >= 0:
        keep = _keep_by_sweep(boxes, iou_threshold, offset)
    if keep is None:
        keep = _keep_by_blocks(boxes, iou_threshold, offset)
    return keep.nonzero().flatten()


def _keep_by_sweep(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor | None:
    """Returns the (N,) mask of kept boxes, or None where the blocks are the better way.

    Of all pairs the sweep looks at those that meet along x, the blocks at those with a kept box,
    in a quarter of the time for each.
    """
    array = boxes.numpy()
    if len(array) > 2 * _BLOCK:
        first = _overlapping_pairs(array[:_BLOCK], iou_threshold, offset)
        share_kept = 0.0 if first is None else _resolve_pairs(*first, _BLOCK).mean()
        _, following = _following_along_x(array[:, 0], array[:, 2] + np.float32(offset))
        share_met = following.sum() / (len(array) ** 2 / 2)
        if share_met > share_kept / 4:
            return None
    pairs = _overlapping_pairs(array, iou_threshold, offset)
    return None if pairs is None else torch.from_numpy(_resolve_pairs(*pairs, len(array)))


def _overlapping_pairs(
    boxes: Array, iou_threshold: float, offset: int
) -> tuple[Array, Array] | None:
    """Lists the pairs i < j with an IoU above the threshold; None if there are too many."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    add, threshold = np.float32(offset), np.float32(iou_threshold)
    before, after, num_pairs = [], [], 0
    with np.errstate(all="ignore"):  # boxes may hold anything; NaN compares as False
        area = (x2 - x1 + add) * (y2 - y1 + add)
        for i, j in _pairs_along_x(x1, x2 + add):
            height = np.minimum(y2[i], y2[j]) - np.maximum(y1[i], y1[j]) + add
            meet = height > 0
            i, j, height = i[meet], j[meet], height[meet]
            width = np.minimum(x2[i], x2[j]) - np.maximum(x1[i], x1[j]) + add
            inter = np.maximum(width, np.float32(0)) * height
            above = inter / (area[i] + area[j] - inter) > threshold
            before.append(np.minimum(i[above], j[above]))
            after.append(np.maximum(i[above], j[above]))
            num_pairs += len(before[-1])
            if num_pairs > _MAX_PAIRS:
                return None
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *before]), np.concatenate([empty, *after])


def _pairs_along_x(left: Array, right: Array) -> Iterator[tuple[Array, Array]]:
    """Yields, in portions, every pair of intervals [left, right] that meet."""
    order, count = _following_along_x(left, right)
    start = np.arange(1, len(left) + 1)
    total = np.cumsum(count)
    first = 0
    while first < len(left):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + _MAX_PAIRS, side="right")), first + 1)
        portion = count[first:last]
        # For each interval the positions start, start + 1, ... start + count - 1.
        step = np.arange(portion.sum()) - np.repeat(np.cumsum(portion) - portion, portion)
        one = np.repeat(np.arange(first, last), portion)
        yield order[one], order[start[one] + step]
        first = last


def _following_along_x(left: Array, right: Array) -> tuple[Array, Array]:
    """Returns an order of intervals, and how many after each of them it meets.

    After sorting by ``left``, an interval meets those that follow it up to its own end.
    """
    order = np.argsort(left, kind="stable")
    ends = np.searchsorted(left[order], right[order], side="right")
    return order, np.maximum(ends - np.arange(1, len(left) + 1), 0)


def _resolve_pairs(before: Array, after: Array, num_boxes: int) -> Array:
    """Returns the (N,) mask of boxes that no kept box before them suppresses.

    "Kept" is defined by itself, but only through earlier boxes: repeating the definition from any
    mask settles the first box, then the second, ...; in practice after a few rounds.
    """
    keep = np.ones(num_boxes, dtype=bool)
    while True:
        settled = np.ones(num_boxes, dtype=bool)
        settled[after[keep[before]]] = False
        if np.array_equal(settled, keep):
            return keep
        keep = settled


def _keep_by_blocks(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Returns the (N,) mask of kept boxes; works on any device.

    Settles one block of the remaining boxes within itself, then removes what its kept boxes
    suppress from the rest.
    """
    size = _CPU_BLOCK if boxes.device.type == "cpu" else _BLOCK
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    remaining = torch.arange(len(boxes), device=boxes.device)
    while len(remaining) > 0:
        block, rest = remaining[:size], remaining[size:]
        suppresses = _iou_above(boxes[block], boxes[block], iou_threshold, offset).triu(1)
        block = block[_resolve_matrix(suppresses)]
        keep[block] = True
        free = [
            part[~_iou_above(boxes[block], boxes[part], iou_threshold, offset).any(dim=0)]
            for part in torch.split(rest, _MAX_PAIRS // size)
        ]
        remaining = torch.cat(free)
    return keep


def _iou_above(a: Tensor, b: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Returns the (N, M) mask of the pairs of ``a`` and ``b`` with an IoU above the threshold."""
    a, b = a[:, None], b[None]
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0]) + offset
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1]) + offset
    inter = width.clamp_(min=0) * height.clamp_(min=0)
    iou = inter / (_areas(a, offset) + _areas(b, offset) - inter)
    return iou > torch.tensor(iou_threshold, dtype=iou.dtype, device=iou.device)


def _areas(boxes: Tensor, offset: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1 + offset) * (y2 - y1 + offset)


def _resolve_matrix(suppresses: Tensor) -> Tensor:
    """Returns the (N,) mask of kept boxes, ``suppresses`` being (N, N) and upper triangular.

    See ``_resolve_pairs``.
    """
    keep = torch.ones(len(suppresses), dtype=torch.bool, device=suppresses.device)
    while True:
        settled = ~(suppresses & keep[:, None]).any(dim=0)
        if torch.equal(settled, keep):
            return keep
        keep = settled


_IMPLEMENTATIONS: dict[str, Callable[[Tensor, float, int], Tensor]] = {
    "mmcv": _keep_with_mmcv,
    "torchvision": _keep_with_torchvision,
    "fldet": keep_in_order,
}
