"""The loss of YOLOv2: squares and a softmax over the cells of one map, as darknet's region layer.

The paper (arXiv 1612.08242) refers to YOLO for it; what is here is what the authors' code computes
(region_layer.c), with the settings of their yolov2.cfg. All boxes are in cells of the map: centres
and sizes, x and y from the upper left corner of the map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 0.001  # shares of the image; boxes of a smaller side are no truth


@dataclass(frozen=True)
class RegionSettings:
    """Weights of the parts of the loss, and what they are for.

    Attributes:
        object_scale: of the objectness of a prior that has a truth.
        no_object_scale: of the objectness of the others.
        coord_scale: of the four coordinates, times 2 - (area of the truth / area of the input).
        class_scale: of the cross entropy of the classes.
        ignore_iou: from this IoU of its box with a truth on, a prior without one is left alone.
        rescore: whether the objectness learns the IoU of its box, or 1.
        prior_images: for so many images of a training all boxes are pulled to their priors.
        prior_scale: weight of that pull.
        max_truths: only so many boxes of an image are looked at. In training they are drawn anew
            each time, as darknet shuffles the boxes of an image; in evaluation mode they are the
            first ones.

    Raises:
        ValueError: a number is negative, or ``ignore_iou`` is greater than 1.
    """

    object_scale: float = 5.0
    no_object_scale: float = 1.0
    coord_scale: float = 1.0
    class_scale: float = 1.0
    ignore_iou: float = 0.6
    rescore: bool = True
    prior_images: int = 12_800
    prior_scale: float = 0.01
    max_truths: int = 30

    def __post_init__(self) -> None:
        negative = [name for name, value in vars(self).items() if value < 0]
        if negative or self.ignore_iou > 1:
            wrong = negative[0] if negative else "ignore_iou"
            raise ValueError(f"train_cfg.{wrong} is out of range: {getattr(self, wrong)}")


@dataclass(frozen=True)
class Truth:
    """The boxes of an image that count: (T, 4) centre and size in cells, and (T,) labels."""

    boxes: Tensor
    labels: Tensor


@dataclass
class Targets:
    """What each prior of an image should be; A priors at each of H x W cells."""

    boxes: Tensor  # (A, 4, H, W), activated as the predictions
    box_weights: Tensor  # (A, H, W)
    objectness: Tensor  # (A, H, W)
    object_weights: Tensor  # (A, H, W)
    positives: Tensor  # (P,) places in (A, H, W)
    labels: Tensor  # (P,)


def region_loss(
    values: Tensor, truths: list[Truth], priors: Tensor, settings: RegionSettings, pull: Tensor
) -> dict[str, Tensor]:
    """Returns ``loss_bbox``, ``loss_obj`` and ``loss_cls``, sums divided by the number of images.

    Their gradients are the negative deltas of darknet's layer over the number of images, which is
    what its learning rate is divided by.

    Args:
        values: (N, A, 5 + K, H, W) raw predictions in float32: x, y, w, h, objectness, classes.
        truths: of each image.
        priors: (A, 2) widths and heights in cells.
        settings: the weights.
        pull: a number, the weight of the pull of all boxes to their priors.
    """
    boxes = torch.cat([values[:, :, :2].sigmoid(), values[:, :, 2:4]], dim=2)
    objectness = values[:, :, 4].sigmoid()
    with torch.no_grad():
        targets = [
            assign(box, truth, priors, settings, pull)
            for box, truth in zip(boxes, truths, strict=True)
        ]
    of_boxes = torch.stack([t.box_weights for t in targets])[:, :, None]
    off = boxes - torch.stack([t.boxes for t in targets])
    missing = objectness - torch.stack([t.objectness for t in targets])
    of_objects = torch.stack([t.object_weights for t in targets])
    logits = [
        value[:, 5:].movedim(1, -1).flatten(0, 2)[target.positives]
        for value, target in zip(values, targets, strict=True)
    ]
    labels = torch.cat([t.labels for t in targets])
    entropy = F.cross_entropy(torch.cat(logits), labels, reduction="sum")
    sums = {
        "loss_bbox": (of_boxes * off.square()).sum() / 2,
        "loss_obj": (of_objects * missing.square()).sum() / 2,
        "loss_cls": settings.class_scale * entropy,
    }
    return {name: value / len(values) for name, value in sums.items()}


def assign(
    boxes: Tensor, truth: Truth, priors: Tensor, settings: RegionSettings, pull: Tensor
) -> Targets:
    """Returns the targets of an image whose (A, 4, H, W) boxes are activated.

    A truth belongs to the prior of the best IoU, as if both were in one place, in the cell of its
    centre; of two truths with one prior the later one counts.
    """
    count, _, height, width = boxes.shape
    predicted = in_cells(boxes[None], priors)[0]
    every = predicted.movedim(1, -1).reshape(-1, 1, 4)
    best = box_iou(every, truth.boxes[None]).amax(dim=1) if len(truth.boxes) else every[:, 0, 0] * 0
    weights = (best <= settings.ignore_iou).to(boxes) * settings.no_object_scale
    targets = Targets(
        boxes=boxes.new_tensor([0.5, 0.5, 0.0, 0.0])[None, :, None, None].expand_as(boxes).clone(),
        box_weights=pull.to(boxes).expand(count, height, width).clone(),
        objectness=boxes.new_zeros(count, height, width),
        object_weights=weights.view(count, height, width),
        positives=truth.labels[:0],
        labels=truth.labels[:0],
    )
    if len(truth.boxes):
        _add_positives(targets, truth, priors, settings, every[:, 0])
    return targets


def _add_positives(
    targets: Targets, truth: Truth, priors: Tensor, settings: RegionSettings, predicted: Tensor
) -> None:
    """Writes the truths into the targets, in place; ``predicted`` has (A * H * W, 4) boxes."""
    _, height, width = targets.objectness.shape
    which = shape_iou(truth.boxes[:, None, 2:], priors).argmax(dim=1)
    columns = truth.boxes[:, 0].long().clamp(0, width - 1)
    rows = truth.boxes[:, 1].long().clamp(0, height - 1)
    places = (which * height + rows) * width + columns
    last = ~(places[:, None] == places).triu(1).any(dim=1)  # no later truth is at the same place
    which, columns, rows, places = (x[last] for x in (which, columns, rows, places))
    wanted = truth.boxes[last]
    targets.positives, targets.labels = places, truth.labels[last]

    centres = wanted[:, :2] - torch.stack([columns, rows], dim=1)
    sizes = (wanted[:, 2:] / priors[which]).log()
    targets.boxes[which, :, rows, columns] = torch.cat([centres, sizes], dim=1)
    areas = wanted[:, 2] * wanted[:, 3] / (width * height)
    targets.box_weights[which, rows, columns] = settings.coord_scale * (2 - areas)
    ious = box_iou(predicted[places], wanted) if settings.rescore else torch.ones_like(areas)
    targets.objectness[which, rows, columns] = ious
    targets.object_weights[which, rows, columns] = settings.object_scale


def in_cells(boxes: Tensor, priors: Tensor) -> Tensor:
    """Returns the (N, A, 4, H, W) centres and sizes, in cells, of boxes as the map has them.

    These have x and y after the sigmoid, w and h before the exponential.
    """
    height, width = boxes.shape[-2:]
    columns = torch.arange(width, device=boxes.device).to(boxes)
    rows = torch.arange(height, device=boxes.device).to(boxes)
    x, y = boxes[:, :, 0] + columns, boxes[:, :, 1] + rows[:, None]
    sizes = boxes[:, :, 2:4].exp() * priors.to(boxes)[None, :, :, None, None]
    return torch.stack([x, y, sizes[:, :, 0], sizes[:, :, 1]], dim=2)


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Returns the IoU of (..., 4) boxes, centres and sizes, that broadcast with one another."""
    low = torch.maximum(one[..., :2] - one[..., 2:] / 2, other[..., :2] - other[..., 2:] / 2)
    high = torch.minimum(one[..., :2] + one[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2)
    inter = (high - low).clamp(min=0).prod(dim=-1)
    return inter / (one[..., 2:].prod(dim=-1) + other[..., 2:].prod(dim=-1) - inter)


def shape_iou(one: Tensor, other: Tensor) -> Tensor:
    """Returns the IoU of boxes with one centre; (..., 2) widths and heights."""
    inter = torch.minimum(one, other).prod(dim=-1)
    return inter / (one.prod(dim=-1) + other.prod(dim=-1) - inter)


def truth_of(
    bboxes: Tensor, labels: Tensor, *, stride: int, shape: tuple[int, int], most: int
) -> Truth:
    """Returns the first boxes of an image, without those of next to no width or height.

    ``bboxes`` are (M, 4) xyxy in pixels of the network's input, ``shape`` is (H, W) of the map.
    """
    bboxes, labels = bboxes[:most] / stride, labels[:most]
    boxes = torch.cat([(bboxes[:, :2] + bboxes[:, 2:]) / 2, bboxes[:, 2:] - bboxes[:, :2]], dim=1)
    large = (boxes[:, 2:] >= SMALLEST * boxes.new_tensor([shape[1], shape[0]])).all(dim=1)
    return Truth(boxes[large], labels[large])
