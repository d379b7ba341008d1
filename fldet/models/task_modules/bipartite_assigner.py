"""Which default box answers for which object: MultiBox (Liu et al. 2016, Sec. 2.2)."""

from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.task_modules import AssignResult
from mmdet.models.task_modules.assigners import BaseAssigner
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from fldet.models.task_modules.max_iou_assigner import Corners, pairwise_iou, to_corners
from fldet.registry import TASK_UTILS

_TOUCHING = 1e-6  # smaller overlaps are none, as in the authors' code


@TASK_UTILS.register_module()
@dataclass(eq=False, kw_only=True)
class BipartiteAssigner(BaseAssigner):
    """Every object gets the best free box, one to one; then boxes from IoU .5 their best object.

    The first step is greedy: of all pairs the one of highest IoU is joined, then the best of the
    rest, until each object that overlaps a free box has one. So two objects with one best box do
    not fight for it, as they do with ``MaxIoUAssigner``: the second gets its next best. It is
    ``MatchBBox`` of the authors' Caffe; of equal pairs that of the first box is joined.

    Args:
        pos_iou_thr: lowest IoU of a positive box in the second step, in (0, 1].
        neg_iou_thr: IoU below which a box that is not positive is background, in [0, pos_iou_thr];
            those between the two are ignored.

    Raises:
        ValueError: a threshold is out of range.
    """

    pos_iou_thr: float = 0.5
    neg_iou_thr: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.pos_iou_thr <= 1:
            raise ValueError(f"pos_iou_thr must be in (0, 1], got {self.pos_iou_thr}")
        if not 0 <= self.neg_iou_thr <= self.pos_iou_thr:
            raise ValueError(
                f"neg_iou_thr must be in [0, pos_iou_thr], got {self.neg_iou_thr} with "
                f"pos_iou_thr {self.pos_iou_thr}"
            )

    @torch.no_grad()
    def assign(
        self,
        pred_instances: Any,
        gt_instances: Any,
        gt_instances_ignore: Any | None = None,  # noqa: ARG002 - crowds are background, as there
        **kwargs: Any,  # noqa: ARG002 - mmdet sets the signature
    ) -> AssignResult:
        """Returns the object, best IoU and class of each default box.

        Args:
            pred_instances: ``priors`` (N, 4), the default boxes, in pixels of the network's input.
            gt_instances: ``bboxes`` (M, 4) and ``labels`` (M,).
            gt_instances_ignore: not used.
            **kwargs: not used.

        Returns:
            ``gt_inds`` (N,): i + 1 for object i, 0 for background, -1 for ignored; ``max_overlaps``
            (N,); ``labels`` (N,): class of the object, or -1. Without an object every box is
            background.
        """
        priors = get_box_tensor(pred_instances.priors).float()
        bboxes = get_box_tensor(gt_instances.bboxes).float()
        labels = gt_instances.labels.long()
        if len(priors) == 0 or len(bboxes) == 0:
            nothing = torch.zeros(len(priors), dtype=torch.long, device=priors.device)
            return AssignResult(len(bboxes), nothing, nothing.float(), nothing - 1)
        iou = _all_pairs(priors, bboxes)
        overlaps, nearest = iou.max(dim=0)
        gt_inds = (overlaps < self.neg_iou_thr).long() - 1
        gt_inds = torch.where(overlaps >= self.pos_iou_thr, nearest + 1, gt_inds)
        for number, box in join_greedily(iou):
            gt_inds[box] = number + 1
        label_of = torch.cat([labels.new_full((2,), -1), labels])  # ignored, background, objects
        return AssignResult(len(bboxes), gt_inds, overlaps, label_of[gt_inds + 1])


def join_greedily(iou: Tensor) -> list[tuple[int, int]]:
    """Returns pairs (object, box), those of highest IoU first, each object and box at most once.

    ``iou`` (M, N) is overwritten: the columns of joined boxes become -1.
    """
    best, box = (values.tolist() for values in iou.max(dim=1))
    free, pairs = set(range(len(best))), []
    while free:
        number = min(free, key=lambda one: (-best[one], box[one], one))
        if best[number] <= _TOUCHING:
            break
        free.remove(number)
        taken = box[number]
        pairs.append((number, taken))
        iou[:, taken] = -1
        for other in free:
            if box[other] == taken:
                value, index = iou[other].max(dim=0)
                best[other], box[other] = value.item(), index.item()
    return pairs


def _all_pairs(priors: Tensor, bboxes: Tensor) -> Tensor:
    """Returns the (M, N) IoUs of objects and default boxes."""
    iou, *scratch = priors.new_empty(3, len(bboxes), len(priors))
    objects = Corners(*(column[:, None] for column in to_corners(bboxes)))
    return pairwise_iou(to_corners(priors), objects, iou, scratch)
