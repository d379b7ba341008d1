"""Which anchors of an image count in the classification loss: the paper's baselines (Sec. 5.1).

A miner is asked once the scores of all levels are there. It sees the examples of every image
(anchors that are positive or background; ignored ones are left out) and says which to keep.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from fldet.ops.nms import move_classes_apart, nms
from fldet.registry import TASK_UTILS

Divisor = Literal["selected", "positives"]


@dataclass(frozen=True)
class Examples:
    """What a miner may look at, of one image, without gradients."""

    cls_losses: Tensor  # (N,) classification loss of each example, summed over the classes
    box_losses: Tensor  # (N,) box loss, 0 for background
    is_positive: Tensor  # (N,) booleans
    classes: Tensor  # (N,) label of a positive, class of highest score of a background example
    anchors: Tensor  # (N, 4) as x1, y1, x2, y2 in pixels of the network's input
    decoded: Tensor  # (N, 4) predicted boxes, in the same form


class Miner(Protocol):
    """What the head needs of a miner.

    Attributes:
        divisor: the classification loss is divided by the number of ``selected`` examples or of
            ``positives``, counted as the head's normalizer counts.
    """

    divisor: Divisor

    def mine(self, images: list[Examples]) -> list[Tensor]:
        """Returns for each image the int64 indices of the examples to keep."""
        ...


@TASK_UTILS.register_module()
@dataclass(eq=False)
class OHEM:
    """Online hard example mining: NMS over examples by their loss, then the hardest (Sec. 5.1).

    With ``neg_pos_ratio=3`` it is the paper's "OHEM 1:3". The names below stand for what the paper
    leaves open (DEVIATION D14); easy examples are dropped entirely, the box loss keeps all
    positives.

    Args:
        num_examples: how many are kept; the paper tries 128, 256, 512.
        iou_threshold: of the NMS, in [0, 1]; the paper tries .7 and .5.
        neg_pos_ratio: None, or so many negatives for each positive, positives being at most
            ``num_examples / (1 + ratio)`` of the hardest.
        fill: with a ratio, fill up with further negatives where positives are few; else an image
            without positives contributes nothing.
        per: keep ``num_examples`` of each ``image``, or of the ``batch`` of a process.
        nms_on: overlap of the ``anchors`` or of the ``decoded`` boxes.
        class_agnostic: whether examples of different classes suppress each other.
        score: rank by the loss of classification (``cls``) or that plus the box loss (``total``).
        divisor: see ``Miner``.
        prefilter: so many examples of highest loss are looked at first, and more until the
            selection is certain; the result does not depend on it. By default twice
            ``num_examples``.

    Raises:
        ValueError: an argument is out of range.
    """

    num_examples: int = 128
    iou_threshold: float = 0.7
    _: KW_ONLY
    neg_pos_ratio: int | None = None
    fill: bool = False
    per: Literal["image", "batch"] = "image"
    nms_on: Literal["anchors", "decoded"] = "anchors"
    class_agnostic: bool = True
    score: Literal["cls", "total"] = "cls"
    divisor: Divisor = "selected"
    prefilter: int | None = None

    def __post_init__(self) -> None:
        check_choice("per", self.per, ("image", "batch"))
        check_choice("nms_on", self.nms_on, ("anchors", "decoded"))
        check_choice("score", self.score, ("cls", "total"))
        check_choice("divisor", self.divisor, ("selected", "positives"))
        count, ratio = self.num_examples, self.neg_pos_ratio
        if count < 1 or (self.prefilter is not None and self.prefilter < 1):
            raise ValueError(
                f"num_examples and prefilter must be >= 1, got {count} and {self.prefilter}"
            )
        if not 0 <= self.iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in [0, 1], got {self.iou_threshold}")
        if ratio is not None and not 1 <= ratio < count:
            raise ValueError(f"neg_pos_ratio must be None or in 1..{count - 1}, got {ratio}")

    def mine(self, images: list[Examples]) -> list[Tensor]:
        """Returns for each image the indices of the examples to keep, by falling loss."""
        if self.per == "batch":
            return self._mine(images)
        return [self._mine([image])[0] for image in images]

    def _mine(self, images: list[Examples]) -> list[Tensor]:
        """Returns what to keep of each image, ``num_examples`` of all of them together."""
        kept = [self._survivors(image) for image in images]
        losses = [self._losses(image)[rows] for image, rows in zip(images, kept, strict=True)]
        positive = [image.is_positive[rows] for image, rows in zip(images, kept, strict=True)]
        order = torch.cat(losses).argsort(descending=True, stable=True)
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen[order[self._choose(torch.cat(positive)[order])]] = True
        parts = torch.split(chosen, [len(rows) for rows in kept])
        return [rows[part] for rows, part in zip(kept, parts, strict=True)]

    def _losses(self, image: Examples) -> Tensor:
        return image.cls_losses if self.score == "cls" else image.cls_losses + image.box_losses

    def _survivors(self, image: Examples) -> Tensor:
        """Returns as many indices, by falling loss, as can matter of those that NMS keeps.

        Whether NMS keeps an example depends on examples of higher loss only. So what it keeps of
        the k hardest is the beginning of what it keeps of all.
        """
        losses = self._losses(image)
        boxes = image.anchors if self.nms_on == "anchors" else image.decoded
        if not self.class_agnostic:
            boxes = move_classes_apart(boxes, image.classes)
        order = losses.argsort(descending=True, stable=True)
        boxes, losses, is_positive = boxes[order], losses[order], image.is_positive[order]
        size = self.prefilter or 2 * self.num_examples
        while True:
            kept = nms(boxes[:size], losses[:size], self.iou_threshold)
            if size >= len(order) or self._suffices(is_positive[kept], is_positive[size:]):
                return order[kept]
            size *= 4

    def _suffices(self, kept_positive: Tensor, rest_positive: Tensor) -> bool:
        """Returns whether what is left after the examples looked at cannot change the choice."""
        if self.neg_pos_ratio is None:
            return len(kept_positive) >= self.num_examples
        num_pos = int(kept_positive.sum())
        if num_pos < self._most_positives and bool(rest_positive.any()):
            return False
        # in a batch other images may bring the positives, or none
        in_batch = self.per == "batch"
        wanted = self.num_examples if in_batch else self._num_negatives(num_pos)
        return len(kept_positive) - num_pos >= wanted

    def _choose(self, is_positive: Tensor) -> Tensor:
        """Returns which of the survivors to keep, given by falling loss."""
        if self.neg_pos_ratio is None:
            return torch.arange(len(is_positive), device=is_positive.device)[: self.num_examples]
        positives = is_positive.nonzero().squeeze(1)[: self._most_positives]
        negatives = (~is_positive).nonzero().squeeze(1)[: self._num_negatives(len(positives))]
        return torch.cat([positives, negatives])

    @property
    def _most_positives(self) -> int:
        return self.num_examples // (1 + (self.neg_pos_ratio or 0))

    def _num_negatives(self, num_pos: int) -> int:
        num_pos = min(num_pos, self._most_positives)
        if self.fill:
            return self.num_examples - num_pos
        return num_pos * (self.neg_pos_ratio or 0)


@TASK_UTILS.register_module()
@dataclass(eq=False)
class HardNegatives:
    """All positives and the negatives of highest loss, so many for each, without NMS, as in SSD.

    A control beside the paper's rows: one public comparison found it above the focal loss.
    An image without positives contributes ``min_negatives``.

    Args:
        ratio: negatives for each positive.
        min_negatives: at least so many of each image.
        divisor: see ``Miner``; SSD divides by the positives.

    Raises:
        ValueError: an argument is out of range.
    """

    ratio: float = 3.0
    _: KW_ONLY
    min_negatives: int = 0
    divisor: Divisor = "positives"

    def __post_init__(self) -> None:
        check_choice("divisor", self.divisor, ("selected", "positives"))
        if self.ratio < 0 or self.min_negatives < 0:
            raise ValueError(
                f"ratio and min_negatives must be >= 0, got {self.ratio} and {self.min_negatives}"
            )

    def mine(self, images: list[Examples]) -> list[Tensor]:
        """Returns for each image the indices of the examples to keep, positives first."""
        return [self._mine(image) for image in images]

    def _mine(self, image: Examples) -> Tensor:
        positives = image.is_positive.nonzero().squeeze(1)
        negatives = (~image.is_positive).nonzero().squeeze(1)
        wanted = max(int(self.ratio * len(positives)), self.min_negatives)
        order = image.cls_losses[negatives].argsort(descending=True, stable=True)
        return torch.cat([positives, negatives[order[:wanted]]])


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
