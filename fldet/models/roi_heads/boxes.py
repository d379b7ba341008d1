"""What Faster R-CNN+++ does with boxes: voting, and the choice of scales."""

from collections.abc import Sequence

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor


def vote(boxes: Tensor, candidates: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Returns (D, 4) boxes, each the mean of the candidates around it, weighted by their scores.

    Box voting of Gidaris and Komodakis (arXiv 1505.01749, Sec. 3.3). A box without area, or whose
    votes are all of score 0, stays as it is.

    Args:
        boxes: (D, 4) what suppression kept, as x1, y1, x2, y2.
        candidates: (R, D, 4) boxes, those in column d of the class of box d.
        scores: (R, D) scores of the candidates, at least 0.
        iou_threshold: a candidate votes from this IoU with the box on.
    """
    near = bbox_overlaps(candidates, boxes.expand_as(candidates), is_aligned=True) >= iou_threshold
    weights = scores * near
    total = weights.sum(dim=0)[:, None]
    mean = (weights[:, :, None] * candidates).sum(dim=0) / total
    return torch.where(total > 0, mean, boxes)


def lower_scales(rois: Tensor, factors: Sequence[float], side: float) -> Tensor:
    """Returns for each region the index i of two neighbouring scales i and i + 1.

    At scale i the region is at most ``side`` pixels large (the root of its area), at the next one
    larger; where all scales are larger or smaller, they are the first two or the last two.

    Args:
        rois: (R, 5) as index of the image, x1, y1, x2, y2.
        factors: of each scale, ascending: its pixels for a pixel of ``rois``.
        side: in pixels of a scale.

    Returns:
        (R,) int64 in [0, len(factors) - 2].
    """
    sides = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    inner = sides.new_tensor(factors[1:-1])
    return (sides[:, None] * inner <= side).sum(dim=1)
