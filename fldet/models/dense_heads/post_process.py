"""From the maps of a head to detections, reading most logits once and decoding few boxes.

The results are those of MMDetection's ``filter_scores_and_topk`` and ``batched_nms``: the same
values go through the same torch functions in the same order, so that ties fall alike. Only what
cannot reach the result is left out.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fldet.ops import nms
from fldet.ops.roi_align import widened

_ROWS, _COLUMNS = 16, 64  # one maximum for 16 logits; torch is fast along 64 columns
_SMALL = 1 << 16  # logits of a map that is not worth a filter
_PORTION = 512  # boxes that suppression looks at together
_SERIAL = 1 << 14  # torch computes arrays of this length in one thread


def select_candidates(
    cls_score: Tensor, num_classes: int, *, score_thr: float, nms_pre: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (N,) scores, labels and rows in the (H * W * A) anchors of a level's best boxes.

    The best come first, all above ``score_thr``; at most ``nms_pre``, which ends a slice as in
    MMDetection: -1 leaves out the last one. ``cls_score`` (A * K, H, W) has the logits of one image
    in any memory format; half types are computed in float32.
    """
    scores, positions = scores_above(cls_score, score_thr)
    scores, order = scores.sort(descending=True)  # as unstable as MMDetection's: the same ties
    positions = positions[order[:nms_pre]]
    rows = positions.div(num_classes, rounding_mode="floor")
    return scores[:nms_pre], positions - rows * num_classes, rows


def scores_above(cls_score: Tensor, score_thr: float) -> tuple[Tensor, Tensor]:
    """Returns the (N,) scores of a map above a threshold, with ascending positions in (H, W, C).

    ``cls_score`` has logits (C, H, W), H and W at least 1. The scores are those of
    ``cls_score.permute(1, 2, 0).sigmoid()``, to the last bit. The exception are the up to 31
    elements at the end of what one thread computes of a large map on a CPU: torch treats them in
    another routine, and one unit in the last place may be between the two.
    """
    floor = logit_floor(score_thr)
    found = None
    if cls_score.numel() > _SMALL and floor > -math.inf:
        found = _find(cls_score, floor)
    if found is None:
        scores = widened(cls_score.permute(1, 2, 0).reshape(-1)).sigmoid()
        positions = (scores > score_thr).nonzero().squeeze(1)
        return scores[positions], positions
    logits, positions = found
    scores = _sigmoid(widened(logits))
    above = scores > score_thr
    return scores[above], positions[above]


def logit_floor(score_thr: float) -> float:
    """Returns a logit below all those whose score, in float32, is above the threshold.

    It is below ``log(p / (1 - p))`` by more than a sigmoid in float32 can be wrong, and by more
    than the rounding of the floor itself to a half type. A threshold that is not above 0, or that
    is subnormal, gives minus infinity; one of 1 or more gives infinity.
    """
    threshold = torch.tensor(score_thr, dtype=torch.float32).item()  # torch compares in float32
    if threshold < torch.finfo(torch.float32).tiny:
        return -math.inf
    if threshold >= 1:
        return math.inf
    logit = math.log(threshold) - math.log1p(-threshold)
    return logit - abs(logit) / 64 - 1e-5 / (1 - threshold)


def gather_deltas(bbox_pred: Tensor, rows: Tensor, code_size: int) -> Tensor:
    """Returns the (N, code_size) deltas of some anchors of a level; half types in float32.

    ``bbox_pred`` is (A * code_size, H, W) in any memory format, ``rows`` (N,) are of the level's
    (H * W * A) anchors.
    """
    width, num_anchors = bbox_pred.shape[2], len(bbox_pred) // code_size
    cells, anchors = _divmod(rows, num_anchors)
    y, x = _divmod(cells, width)
    by_anchor = bbox_pred.view(num_anchors, code_size, *bbox_pred.shape[1:])
    return widened(by_anchor[anchors, :, y, x])


def is_plain_nms(nms_cfg: Mapping[str, Any] | None, num_boxes: int) -> bool:
    """Returns whether ``suppress`` knows this kind of suppression.

    Soft NMS and its kin change scores; from ``split_thr`` boxes on MMDetection takes one class
    after another, and equal scores come out in another order.
    """
    return (
        nms_cfg is not None
        and set(nms_cfg) <= {"type", "iou_threshold", "class_agnostic", "split_thr"}
        and nms_cfg.get("type", "nms") == "nms"
        and 0 <= nms_cfg.get("iou_threshold", -1) <= 1
        and num_boxes < nms_cfg.get("split_thr", 10_000)
    )


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    iou_threshold: float,
    class_agnostic: bool = False,
    max_keep: int | None = None,
) -> Tensor:
    """Returns the indices of the best boxes that suppression within each class keeps.

    Boxes are looked at in portions, best first, each with those kept before it: what comes later
    cannot suppress what came earlier, so the work ends with ``max_keep`` boxes. Equal scores are in
    the order of torch's unstable sort, as in mmcv.

    Arguments as of ``fldet.ops.batched_nms``, but that there is at least one box, and that with
    ``class_agnostic`` boxes suppress those of other classes too.
    """
    order = scores.sort(descending=True).indices
    if not class_agnostic:  # the offsets of mmcv's batched_nms, to the last bit
        boxes = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]
    limit = len(order) if max_keep is None else max_keep
    kept = order[:0]
    for first in range(0, len(order), _PORTION):
        if len(kept) >= limit:
            break
        together = torch.cat([kept, order[first : first + _PORTION]])
        falling = torch.arange(len(together), 0, -1, device=boxes.device)
        kept = together[nms(boxes[together], falling, iou_threshold)]
    return kept[:limit]


def _find(cls_score: Tensor, floor: float) -> tuple[Tensor, Tensor] | None:
    """Returns the logits at or above a floor with their positions in the order (H, W, C).

    None where so many blocks hold one that filtering does not pay.
    """
    channels = len(cls_score)
    hwc = cls_score.permute(1, 2, 0)
    in_order = hwc.is_contiguous()
    flat = (hwc if in_order else cls_score).reshape(-1)
    found = _indices_from(flat, floor)
    if found is None:
        return None
    if in_order:
        return flat[found], found
    channel, cell = _divmod(found, len(flat) // channels)
    positions, order = (cell * channels + channel).sort()
    return flat[found[order]], positions


def _indices_from(values: Tensor, floor: float) -> Tensor | None:
    """Returns the ascending-by-block indices of (N,) values that are not below a floor.

    None where more than a quarter of the blocks hold one.
    """
    size = _ROWS * _COLUMNS
    whole = len(values) // size * size
    blocks = values[:whole].view(-1, _ROWS, _COLUMNS)
    hot = (~(blocks.amax(dim=1) < floor)).nonzero()  # a NaN hides no other value of its block
    if 4 * len(hot) > whole // _ROWS:
        return None
    block, column = hot.unbind(1)
    which, row = (blocks[block, :, column] >= floor).nonzero().unbind(1)
    inside = block[which] * size + row * _COLUMNS + column[which]
    rest = (values[whole:] >= floor).nonzero().squeeze(1) + whole
    return torch.cat([inside, rest]).sort().values


def _sigmoid(logits: Tensor) -> Tensor:
    """Returns the sigmoid of (N,) logits, all by the vector routine of torch.

    On a CPU the last elements of an array and of each thread's share would get another one.
    """
    if logits.device.type != "cpu" or len(logits) == 0:
        return logits.sigmoid()
    padded = torch.cat([logits, logits.new_zeros(-len(logits) % 64)])
    parts = [padded[i : i + _SERIAL].sigmoid() for i in range(0, len(padded), _SERIAL)]
    return torch.cat(parts)[: len(logits)]


def _divmod(number: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    quotient = number.div(divisor, rounding_mode="floor")
    return quotient, number - quotient * divisor
