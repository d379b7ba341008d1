"""How well anchors cover boxes: the best IoU of each box, and the anchors that become positive.

Plain NumPy, no image and no model. An image counts by the size that the network pads it to: its
anchors sit on a grid of ceil(side / stride) columns and rows on each level. The arithmetic is that
of MMDetection's ``MaxIoUAssigner`` (float32, same order), so that even ties fall out alike.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from fldet.errors import DataError
from fldet.files import parse_json, read_arrays, write_atomically
from fldet.results import Share, Within, stored

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_CHUNK = 20_000  # boxes looked at together: bounds the memory
_MOST_PAIRS = 50_000_000  # of a box and an anchor near it, looked at together: 5 GB
_MOST_OF_SIDE, _MOST_OF_IMAGES = 2**15, 10**7
_MOST_OF_ANCHORS, _MOST_OF_LEVELS = 100, 10  # at a location, and of a scheme
_SLACK = 1e-3  # widens windows of anchors, against rounding; what is too much does no harm


@dataclass(frozen=True)
class AnchorScheme:
    """Anchors in the words of ``fldet.AnchorGenerator``.

    Attributes:
        sizes: side of the smallest square anchor of each level, in pixels of the network's input.
        strides: distance of neighbouring locations of each level, in pixels.
        num_scales: scales per octave.
        ratios: height over width.
    """

    sizes: tuple[Annotated[float, Within(0.01, 1e6)], ...]
    strides: tuple[Annotated[int, Within(1, _MOST_OF_SIDE)], ...]
    num_scales: Annotated[int, Within(1, _MOST_OF_ANCHORS)]
    ratios: tuple[Annotated[float, Within(1e-3, 1e3)], ...]

    @property
    def per_location(self) -> int:
        """Anchors at a location of a level."""
        return self.num_scales * len(self.ratios)

    def base_anchors(self) -> Floats:
        """Returns (levels, anchors per location, 4): the anchors around (0, 0), xyxy in pixels."""
        sizes = np.asarray(self.sizes, np.float32)[:, None, None]
        roots = np.sqrt(np.asarray(self.ratios, np.float32))[:, None]
        scales = np.asarray([2 ** (k / self.num_scales) for k in range(self.num_scales)])
        widths = sizes * (1 / roots) * scales.astype(np.float32)
        heights = sizes * roots * scales.astype(np.float32)
        corners = np.stack([-widths, -heights, widths, heights], axis=-1) * np.float32(0.5)
        return corners.reshape(len(self.sizes), -1, 4)


@dataclass(frozen=True)
class AssignRule:
    """Which anchors learn a box, in the words of MMDetection's ``MaxIoUAssigner``."""

    pos_iou_thr: Share = 0.5  # an anchor of at least this IoU is positive
    neg_iou_thr: Share = 0.4  # one below it is background
    match_low_quality: bool = True  # whether the best anchors of a box are positive at any IoU
    min_pos_iou: float = 0.0  # the smallest IoU at which they are


@dataclass(frozen=True)
class BoxSet:
    """Ground-truth boxes as the network sees them, and the anchors it has for them."""

    boxes: Floats  # (N, 4) xyxy in pixels of the network's input, image after image
    image_of: Ints  # (N,) row of ``padded_wh`` that a box belongs to, ascending
    padded_wh: Ints  # (M, 2) width and height of each image with its padding, in pixels
    areas: Floats  # (N,) width x height of each box in pixels of the file
    scheme: AnchorScheme
    rule: AssignRule
    # words for captions: ``config``, ``split``, ``images``, ``resizing``, ``left_out``
    about: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        """Writes everything into one ``.npz``; returns ``path``."""
        facts = json.dumps(asdict(_Facts(self.scheme, self.rule, self.about)))
        arrays = {key: getattr(self, key) for key in _ARRAYS}
        buffer = BytesIO()
        np.savez_compressed(buffer, facts=facts, **arrays)
        return write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "BoxSet":
        """Returns what ``save`` wrote; another kind of file is a ``DataError``."""
        what = ".npz that 'fldet analyze anchors CONFIG' has written"
        arrays = read_arrays(path, {"facts": ("str", 0), **_ARRAYS}, expected=f"the {what}")
        facts = stored(parse_json(arrays.pop("facts"), str(path)), path, _Facts, what=what)
        boxes = cls(**arrays, **vars(facts))
        if fault := boxes._fault():
            raise DataError(f"{path} is no {what}: {fault}")
        return boxes

    def _fault(self) -> str:
        """Returns which parts do not belong together, empty if all do."""
        number, images = len(self.boxes), len(self.padded_wh)
        levels, scheme = len(self.scheme.sizes), self.scheme
        fits = {
            "boxes": self.boxes.shape == (number, 4) and number and _within(self.boxes, -1e6, 1e6),
            "image_of": self.image_of.shape == (number,)
            and _within(self.image_of, 0, images - 1)
            and (self.image_of[1:] >= self.image_of[:-1]).all(),
            "padded_wh": self.padded_wh.shape == (images, 2)
            and images <= _MOST_OF_IMAGES
            and _within(self.padded_wh, 1, _MOST_OF_SIDE),
            "areas": self.areas.shape == (number,) and _within(self.areas, 0, 1e15),
            "scheme": 0 < levels == len(scheme.strides) <= _MOST_OF_LEVELS
            and 0 < scheme.per_location <= _MOST_OF_ANCHORS,
        }
        return next((f"{name} do not fit" for name, good in fits.items() if not good), "")


def _within(values: npt.NDArray[Any], low: float, high: float) -> bool:
    return bool(((low <= values) & (values <= high)).all())


@dataclass(frozen=True)
class _Facts:
    """What is saved of a ``BoxSet`` as JSON."""

    scheme: AnchorScheme
    rule: AssignRule
    about: dict[str, str]


_ARRAYS = {"boxes": ("float32", 2), "image_of": ("int64", 1), "padded_wh": ("int64", 2)}
_ARRAYS["areas"] = ("float32", 1)


@dataclass(frozen=True)
class Cover:
    """How anchors and boxes fit."""

    best_iou: Floats  # (N,) IoU of each box with its best anchor, in [0, 1]
    positives: Ints  # (M, levels) anchors of each image that are positive, each counted once


@dataclass(frozen=True)
class SeenImage:
    """An image as the network sees it."""

    name: str  # of its file
    image: npt.NDArray[np.uint8]  # (H, W, 3) BGR
    boxes: Floats  # (N, 4) xyxy in its pixels, crowd regions too
    labels: Ints  # (N,) class numbers
    crowd: npt.NDArray[np.bool_]  # (N,) whether a box is a crowd region
    best_iou: Floats  # (N,) IoU of each box with its best anchor


def iou(boxes: Floats, anchors: Floats) -> Floats:
    """Returns the IoU of each pair, in [0, 1]; boxes and anchors are (..., 4) xyxy."""
    sides = np.minimum(boxes[..., 2:], anchors[..., 2:])
    sides = np.clip(sides - np.maximum(boxes[..., :2], anchors[..., :2]), 0, None)
    shared = sides[..., 0] * sides[..., 1]
    union = _area(boxes) + _area(anchors) - shared
    return np.asarray(shared / np.maximum(union, np.float32(1e-6)), np.float32)


def best_ious(boxes: Floats, padded_wh: Ints, scheme: AnchorScheme) -> Floats:
    """Returns (N,) IoU of each box with its best anchor, to rounding.

    Among the anchors of one shape on one level the nearest to the box's centre is best: both sides
    of the intersection shrink with the distance. So one anchor of each shape is looked at.
    ``padded_wh`` (N, 2) is of the box's image; units as in ``BoxSet``.
    """
    best = np.zeros(len(boxes), np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for anchors, stride in zip(scheme.base_anchors(), scheme.strides, strict=True):
        cells = np.clip(np.rint(centres / stride), 0, _last_cell(padded_wh, stride))
        shifts = np.tile(cells.astype(np.float32) * stride, 2)
        for anchor in anchors:
            np.maximum(best, iou(boxes, shifts + anchor), out=best)
    return best


def match(boxes: BoxSet) -> Iterator[Cover]:
    """Yields the exact cover of some images after the other, in order.

    Positive is an anchor with an IoU of at least ``pos_iou_thr`` with some box, or one of the best
    anchors of a box (several may tie). A box that touches no anchor has none.
    """
    images = len(boxes.padded_wh)
    starts = np.searchsorted(boxes.image_of, np.arange(images + 1))
    first = 0
    while first < images:
        last = int(np.searchsorted(starts, starts[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), images)
        rows = slice(starts[first], starts[last])
        yield _match_images(
            boxes.boxes[rows],
            boxes.image_of[rows] - first,
            boxes.padded_wh[first:last],
            boxes.scheme,
            boxes.rule,
        )
        first = last


def _match_images(
    boxes: Floats, image_of: Ints, padded_wh: Ints, scheme: AnchorScheme, rule: AssignRule
) -> Cover:
    best = best_ious(boxes, padded_wh[image_of], scheme)
    # Each box needs its positives and its best anchors; the best are known to rounding only.
    needed = np.minimum(best * (1 - 1e-5), rule.pos_iou_thr)
    shape = len(scheme.sizes), scheme.per_location
    pairs = [
        _near_anchors(boxes, padded_wh[image_of], needed, scheme, level, number)
        for level, number in np.ndindex(shape)
    ]
    box = np.concatenate([pair[0] for pair in pairs])
    overlap = np.concatenate([pair[2] for pair in pairs])
    np.maximum.at(best := np.zeros_like(best), box, overlap)
    is_positive = overlap >= rule.pos_iou_thr
    if rule.match_low_quality:
        is_positive |= (overlap == best[box]) & (overlap >= rule.min_pos_iou) & (overlap > 0)
    kinds = np.repeat(np.arange(len(pairs)), [len(pair[0]) for pair in pairs])
    cells = np.concatenate([pair[1] for pair in pairs])
    # One number for each anchor of each image: its image, kind, row and column.
    extent = (len(padded_wh), len(pairs), *(_last_cell(padded_wh, min(scheme.strides)).max(0) + 1))
    anchors = np.ravel_multi_index((image_of[box], kinds, cells[:, 0], cells[:, 1]), extent)
    image, kind, _, _ = np.unravel_index(np.unique(anchors[is_positive]), extent)
    positives = np.zeros((len(padded_wh), shape[0]), np.int64)
    np.add.at(positives, (image, kind // shape[1]), 1)
    return Cover(best, positives)


def _near_anchors(
    boxes: Floats, padded_wh: Ints, needed: Floats, scheme: AnchorScheme, level: int, number: int
) -> tuple[Ints, Ints, Floats]:
    """Returns all pairs of a box and an anchor of one kind whose IoU may reach ``needed``.

    They are (P,) rows of ``boxes``, (P, 2) column and row of the anchor, (P,) their IoU.
    """
    anchor, stride = scheme.base_anchors()[level, number], scheme.strides[level]
    box_wh, anchor_wh = boxes[:, 2:] - boxes[:, :2], anchor[2:] - anchor[:2]
    least = np.minimum(box_wh, anchor_wh)  # the longest sides that an intersection can have
    # IoU >= t means intersection >= t (A + B) / (1 + t); one side given, so is the other.
    area = needed * (_area(boxes) + _area(anchor)) / (1 + needed)
    can_reach = np.flatnonzero((least.prod(axis=1) >= area * (1 - _SLACK)) & (area > 0))
    box_wh, least, area = box_wh[can_reach], least[can_reach], area[can_reach]
    reach = (box_wh + anchor_wh) / 2 - area[:, None] * (1 - _SLACK) / least[:, ::-1]
    centres = (boxes[can_reach, :2] + boxes[can_reach, 2:]) / 2
    first = np.ceil((centres - reach) / stride - _SLACK)
    last = np.floor((centres + reach) / stride + _SLACK)
    edge = _last_cell(padded_wh[can_reach], stride)
    row, cells = _cells_of(np.clip(first, 0, edge), np.clip(last, 0, edge))
    box = can_reach[row]
    shifts = np.tile(cells.astype(np.float32) * stride, 2)
    return box, cells, iou(boxes[box], shifts + anchor)


def _cells_of(first: npt.NDArray[Any], last: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Returns all cells of (N, 2) windows: (P,) their window and (P, 2) their column and row."""
    first = first.astype(np.int64)
    span = np.maximum(last.astype(np.int64) - first + 1, 0)
    counts = span.prod(axis=1)
    if counts.sum() > _MOST_PAIRS:
        raise DataError(
            f"{counts.sum()} anchors near {len(first)} boxes",
            expected=f"at most {_MOST_PAIRS}: larger strides, or a higher pos_iou_thr",
        )
    window = np.repeat(np.arange(len(first)), counts)
    index = np.arange(len(window)) - np.repeat(counts.cumsum() - counts, counts)
    steps = np.stack([index % span[window, 0], index // span[window, 0]], axis=1)
    return window, first[window] + steps


def _last_cell(padded_wh: Ints, stride: int) -> Ints:
    """Returns the number of the last column and row of a level's grid."""
    return -(-padded_wh // stride) - 1


def _area(boxes: Floats) -> Floats:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
