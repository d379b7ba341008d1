"""Which anchor answers for which box (Sec. 4, "Anchors"), in bounded memory."""

from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from fldet.registry import TASK_UTILS

EPS = 1e-6  # the smallest area that anything is divided by, in square pixels; mmdet's


class Corners(NamedTuple):
    """Boxes column by column; all columns of one shape, in pixels and square pixels."""

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    area: Tensor


class Match(NamedTuple):
    """What is known of each of N anchors; boxes are numbered from 1, and 0 is no box."""

    max_overlaps: Tensor  # (N,) best IoU so far
    nearest: Tensor  # (N,) first box of that IoU
    claimed: Tensor  # (N,) last box that has no better anchor than this one


class Strip(NamedTuple):
    """Views of consecutive anchors, few enough for the processor's cache."""

    anchors: Corners
    match: Match
    iou: Tensor
    scratch: Tensor


@TASK_UTILS.register_module()
@dataclass(eq=False, kw_only=True)
class MaxIoUAssigner(BaseAssigner):
    """Anchors are positive from IoU .5, background below .4 and ignored in between (Sec. 4).

    Besides, as in RPN, the best anchors of each box are positive whatever their IoU (DEVIATION
    D4). The result is that of MMDetection's assigner of this name, bit by bit in float32, with
    two differences. A box that overlaps no anchor gets none; there it gets every anchor that
    overlaps no box (D13). Half types are computed in float32; there in their own type.

    The matrix of all IoUs never exists. On a CPU one box is compared at a time, and only with the
    strips of anchors that it can touch; elsewhere boxes are compared in blocks.

    Args:
        pos_iou_thr: lowest IoU of a positive anchor, in (0, 1].
        neg_iou_thr: IoU below which an anchor is background, in [0, pos_iou_thr].
        min_pos_iou: lowest IoU of a positive anchor by the rule of RPN, in [0, 1].
        match_low_quality: whether to apply the rule of RPN.
        gt_max_assign_all: whether that rule takes all anchors of equal IoU or the first of them.
        ignore_iof_thr: an anchor is ignored where a larger fraction than this lies in a crowd
            region, in (0, 1]; a negative value disregards crowd regions.
        ignore_wrt_candidates: whether that is the fraction of the anchor or of the crowd region.

    Raises:
        ValueError: a threshold is out of range.
    """

    PAIRS_PER_BLOCK = 2**21  # where not on a CPU; 13 bytes each, and at least one box at once
    ANCHORS_PER_STRIP = 2**14

    pos_iou_thr: float = 0.5
    neg_iou_thr: float = 0.4
    min_pos_iou: float = 0.0
    match_low_quality: bool = True
    gt_max_assign_all: bool = True
    ignore_iof_thr: float = -1
    ignore_wrt_candidates: bool = True

    def __post_init__(self) -> None:
        positive, background, crowd = self.pos_iou_thr, self.neg_iou_thr, self.ignore_iof_thr
        if not 0 < positive <= 1:
            raise ValueError(f"pos_iou_thr must be in (0, 1], got {positive}")
        if not 0 <= background <= positive:
            raise ValueError(
                f"neg_iou_thr must be in [0, pos_iou_thr], got {background} with "
                f"pos_iou_thr {positive}"
            )
        if not 0 <= self.min_pos_iou <= 1:
            raise ValueError(f"min_pos_iou must be in [0, 1], got {self.min_pos_iou}")
        if not (crowd < 0 or 0 < crowd <= 1):
            raise ValueError(f"ignore_iof_thr must be negative or in (0, 1], got {crowd}")

    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any | None = None,
        **kwargs: Any,  # noqa: ARG002 - mmdet sets the signature
    ) -> AssignResult:
        """Returns the box, best IoU and class of each anchor.

        Args:
            pred_instances: ``priors`` (N, 4), the anchors, in pixels of the network's input.
            gt_instances: ``bboxes`` (M, 4) and ``labels`` (M,).
            gt_instances_ignore: ``bboxes`` (C, 4), the crowd regions; None is none.
            **kwargs: not used.

        Returns:
            ``gt_inds`` (N,): i + 1 for box i, 0 for background, -1 for ignored. ``max_overlaps``
            (N,): in [0, 1], or -1 in a crowd region; float32 for half types. ``labels`` (N,):
            class of the box, or -1. Without a box every anchor is background, in crowds too.
        """
        priors = get_box_tensor(pred_instances.priors)
        bboxes = get_box_tensor(gt_instances.bboxes)
        labels = gt_instances.labels.long()
        dtype = torch.promote_types(torch.promote_types(priors.dtype, bboxes.dtype), torch.float32)
        if len(priors) == 0 or len(bboxes) == 0:
            nothing = torch.zeros(len(priors), dtype=torch.long, device=priors.device)
            return AssignResult(len(bboxes), nothing, nothing.to(dtype), nothing - 1)

        anchors, boxes = to_corners(priors.to(dtype)), to_corners(bboxes.to(dtype))
        ignored = None
        if self.ignore_iof_thr > 0 and gt_instances_ignore is not None and len(gt_instances_ignore):
            crowds = to_corners(get_box_tensor(gt_instances_ignore.bboxes).to(dtype))
            ignored = self._in_crowds(anchors, crowds)
            # An anchor that begins at infinity overlaps no box.
            anchors = anchors._replace(x1=anchors.x1.masked_fill(ignored, torch.inf))
        match = self._match(anchors, boxes)
        gt_inds = self._to_gt_inds(match)
        if ignored is not None:
            gt_inds.masked_fill_(ignored, -1)
            match.max_overlaps.masked_fill_(ignored, -1)
        label_of = torch.cat([labels.new_full((2,), -1), labels])  # ignored, background, boxes
        return AssignResult(
            len(bboxes), gt_inds, match.max_overlaps, label_of.index_select(0, gt_inds + 1)
        )

    def _in_crowds(self, anchors: Corners, crowds: Corners) -> Tensor:
        """Returns (N,) whether more of an anchor (or of a crowd region) overlaps than allowed."""
        inside = torch.zeros_like(anchors.area, dtype=torch.bool)
        buffers = anchors.area.new_empty(3, len(anchors.area))
        for crowd in split(crowds, 1):
            overlap = intersect(anchors, crowd, buffers[0], buffers[1:])
            whole = anchors.area if self.ignore_wrt_candidates else crowd.area
            inside |= overlap.div_(whole.clamp(min=EPS)) > self.ignore_iof_thr
        return inside

    def _match(self, anchors: Corners, boxes: Corners) -> Match:
        """Returns what the boxes are to each anchor, in the way that suits the device."""
        if anchors.area.device.type == "cpu":
            return self._match_box_by_box(anchors, boxes)
        return self._match_in_blocks(anchors, boxes)

    def _match_box_by_box(self, anchors: Corners, boxes: Corners) -> Match:
        """Returns the match with memory for N pairs; meant for a CPU, where loops are cheap."""
        match = no_match(anchors)
        strips = to_strips(anchors, match, self.ANCHORS_PER_STRIP)
        touched = touching(strips, boxes).tolist()
        # rounded to the type of the IoUs, as a comparison with a tensor does
        min_pos_iou = torch.tensor(self.min_pos_iou, dtype=anchors.area.dtype).item()
        pairs = zip(split(boxes, 1), touched, strict=True)
        for number, (box, touches) in enumerate(pairs, start=1):
            near = list(compress(strips, touches))
            tops = [float(update(strip, box, number).max()) for strip in near]
            top = max(tops, default=0.0)
            # DEVIATION D13: a box that overlaps no anchor gets none.
            if self.match_low_quality and top > 0 and top >= min_pos_iou:
                self._claim([s for s, t in zip(near, tops, strict=True) if t == top], top, number)
        return match

    def _claim(self, strips: list[Strip], top: float, number: int) -> None:
        """Gives the anchors of IoU ``top`` to a box, or the first of them."""
        if not self.gt_max_assign_all:
            strips[0].match.claimed[strips[0].iou.argmax()] = number
            return
        for strip in strips:
            strip.match.claimed.masked_fill_(strip.iou == top, number)

    def _match_in_blocks(self, anchors: Corners, boxes: Corners) -> Match:
        """Returns the match with memory for a block of pairs; never waits for the device."""
        match = no_match(anchors)
        size = max(1, self.PAIRS_PER_BLOCK // len(anchors.area))
        buffers = anchors.area.new_empty(3, min(size, len(boxes.area)), len(anchors.area))
        for start in range(0, len(boxes.area), size):
            block = Corners(*(column[start : start + size, None] for column in boxes))
            iou, *scratch = buffers[:, : len(block.area)]
            pairwise_iou(anchors, block, iou, scratch)
            best, first = iou.max(dim=0)
            better = best > match.max_overlaps
            match.nearest.copy_(torch.where(better, first + start + 1, match.nearest))
            torch.maximum(match.max_overlaps, best, out=match.max_overlaps)
            if self.match_low_quality:
                self._claim_block(match, iou, scratch[0], start)
        return match

    def _claim_block(self, match: Match, iou: Tensor, scratch: Tensor, start: int) -> None:
        """Gives each box of a block, the first of them number ``start + 1``, its best anchors."""
        top = iou.amax(dim=1, keepdim=True)
        if self.gt_max_assign_all:
            claims = iou == top
        else:
            claims = torch.zeros_like(iou, dtype=torch.bool)
            claims.scatter_(1, iou.argmax(dim=1, keepdim=True), True)
        # DEVIATION D13: a box that overlaps no anchor gets none.
        claims &= (top > 0) & (top >= self.min_pos_iou)
        numbers = torch.arange(start + 1, start + 1 + len(iou), dtype=iou.dtype, device=iou.device)
        last = torch.mul(claims, numbers[:, None], out=scratch).amax(dim=0)
        torch.maximum(match.claimed, last.long(), out=match.claimed)

    def _to_gt_inds(self, match: Match) -> Tensor:
        """Returns (N,) the codes by the two thresholds, with the claimed anchors over them."""
        gt_inds = (match.max_overlaps < self.neg_iou_thr).long().sub_(1)
        positive = (match.max_overlaps >= self.pos_iou_thr).nonzero().squeeze(1)
        gt_inds[positive] = match.nearest[positive]
        claimed = match.claimed.nonzero().squeeze(1)
        gt_inds[claimed] = match.claimed[claimed]
        return gt_inds


def to_corners(boxes: Tensor) -> Corners:
    """Returns the columns of (N, 4) boxes, each contiguous, and their areas (N,)."""
    x1, y1, x2, y2 = (column.contiguous() for column in boxes[:, :4].unbind(1))
    return Corners(x1, y1, x2, y2, (x2 - x1) * (y2 - y1))


def split(boxes: Corners, size: int) -> list[Corners]:
    """Returns views of ``size`` boxes each, the last one of what is left."""
    columns = (torch.split(column, size) for column in boxes)
    return [Corners(*part) for part in zip(*columns, strict=True)]


def intersect(anchors: Corners, boxes: Corners, out: Tensor, scratch: Any) -> Tensor:
    """Returns ``out`` with the areas of intersection, in square pixels.

    Columns of anchors are (N,); of one box (1,), and ``out`` is (N,) then; of several (B, 1), and
    ``out`` is (B, N). ``scratch`` are two tensors like ``out``.
    """
    height, edge = scratch
    torch.minimum(anchors.x2, boxes.x2, out=out)
    out.sub_(torch.maximum(anchors.x1, boxes.x1, out=edge)).clamp_(min=0)
    torch.minimum(anchors.y2, boxes.y2, out=height)
    height.sub_(torch.maximum(anchors.y1, boxes.y1, out=edge)).clamp_(min=0)
    return out.mul_(height)


def pairwise_iou(anchors: Corners, boxes: Corners, out: Tensor, scratch: Any) -> Tensor:
    """Returns ``out`` with the IoUs, rounded as mmdet's; arguments as of ``intersect``."""
    overlap = intersect(anchors, boxes, out, scratch)
    union = torch.add(anchors.area, boxes.area, out=scratch[0]).sub_(overlap).clamp_(min=EPS)
    return overlap.div_(union)


def no_match(anchors: Corners) -> Match:
    """Returns the match before any box is seen."""
    nearest = torch.zeros_like(anchors.area, dtype=torch.long)
    return Match(torch.zeros_like(anchors.area), nearest, nearest.clone())


def to_strips(anchors: Corners, match: Match, size: int) -> list[Strip]:
    """Returns strips of ``size`` anchors; they share their scratch, and all else is theirs."""
    scratch = anchors.area.new_empty(2, min(size, len(anchors.area)))
    iou = torch.split(torch.empty_like(anchors.area), size)
    columns = (torch.split(column, size) for column in match)
    matches = [Match(*part) for part in zip(*columns, strict=True)]
    return [
        Strip(*parts, scratch[:, : len(parts[-1])])
        for parts in zip(split(anchors, size), matches, iou, strict=True)
    ]


def touching(strips: list[Strip], boxes: Corners) -> Tensor:
    """Returns (M, strips) whether a box overlaps the hull of a strip; where not, IoUs are 0."""
    x1, y1, x2, y2 = torch.stack(
        [
            torch.stack([a.x1.amin(), a.y1.amin(), a.x2.amax(), a.y2.amax()])
            for a in (strip.anchors for strip in strips)
        ],
        dim=1,
    )
    box = Corners(*(column[:, None] for column in boxes))
    return (x1 < box.x2) & (x2 > box.x1) & (y1 < box.y2) & (y2 > box.y1)


def update(strip: Strip, box: Corners, number: int) -> Tensor:
    """Returns the IoUs of a box with a strip's anchors, after noting them in its match."""
    iou = pairwise_iou(strip.anchors, box, strip.iou, strip.scratch)
    best = strip.match.max_overlaps
    strip.match.nearest.masked_fill_(iou > best, number)  # strictly: the first of equals stays
    torch.maximum(best, iou, out=best)
    return iou
