"""The loss of heads with anchors, over all levels at once, so that a miner sees all scores."""

from typing import Any

import torch
from torch import Tensor

from fldet.models.task_modules.miners import Examples, Miner
from fldet.registry import MODELS, TASK_UTILS


class AnchorLoss:
    """Puts its loss in the place of MMDetection's; comes before an ``AnchorHead`` in a class.

    The head has ``loss_cls``, ``loss_bbox`` and what MMDetection's anchor heads have. The sums are
    divided by the number of anchors that are assigned to a box.
    """

    # of the head
    loss_cls: Any
    loss_bbox: Any
    bbox_coder: Any
    get_anchors: Any
    get_targets: Any
    num_classes: int
    cls_out_channels: int
    reg_decoded_bbox: bool

    miner: Miner | None

    def _set_up_loss(self, normalizer: dict[str, Any], miner: dict[str, Any] | None) -> None:
        """Builds what the sums are divided by, and what chooses examples, from their configs."""
        self.normalizer = MODELS.build(normalizer)
        self.miner = TASK_UTILS.build(miner) if miner else None
        if self.miner and self.miner.divisor == "selected":
            self.selected_normalizer = MODELS.build(normalizer)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[Any],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_cls`` over all anchors and ``loss_bbox`` over the assigned ones.

        Args:
            cls_scores: for each level (N, A * K, H, W) raw scores.
            bbox_preds: for each level (N, A * 4, H, W) box deltas.
            batch_gt_instances: for each image ``bboxes`` (M, 4) in pixels of the network's input
                and ``labels`` (M,).
            batch_img_metas: for each image its ``img_shape`` and ``pad_shape``.
            batch_gt_instances_ignore: crowd regions of each image; they only matter to an assigner
                with ``ignore_iof_thr`` > 0.

        Returns:
            Two scalars in float32, without autocast whatever surrounds the call.
        """
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            return self._losses(
                cls_scores,
                bbox_preds,
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore,
            )

    def _losses(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[Any],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: list[Any] | None,
    ) -> dict[str, Tensor]:
        anchors, valid_flags = self.get_anchors(
            [score.shape[-2:] for score in cls_scores], batch_img_metas, cls_scores[0].device
        )
        level_labels, level_weights, box_targets, _, _ = self.get_targets(
            anchors, valid_flags, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )
        labels, label_weights = torch.cat(level_labels, dim=1), torch.cat(level_weights, dim=1)
        is_positive = labels < self.num_classes
        num_pos = is_positive.sum(dim=1)
        avg_factor = self.normalizer(num_pos)
        deltas = flatten_levels(bbox_preds, self.bbox_coder.encode_size)
        targets = torch.cat(box_targets, dim=1)
        flat_anchors = torch.stack([torch.cat(per_image) for per_image in anchors])

        boxes = deltas[is_positive]
        if self.reg_decoded_bbox:
            boxes = self.bbox_coder.decode(flat_anchors[is_positive], boxes)
        # the weights of one are for the losses that ask for some, like GHM's
        loss_bbox = self.loss_bbox(
            boxes, targets[is_positive], torch.ones_like(boxes), avg_factor=avg_factor
        )
        if not len(boxes):  # an IoU loss is a constant then; distributed training wants gradients
            loss_bbox = loss_bbox + boxes.sum()
        if self.miner is None:
            loss_cls = self._all_scores_loss(cls_scores, level_labels, level_weights, avg_factor)
            return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}

        logits = flatten_levels(cls_scores, self.cls_out_channels)
        kept = self._mine(self.miner, logits, labels, label_weights, flat_anchors, deltas, targets)
        if self.miner.divisor == "selected":
            avg_factor = self.selected_normalizer(kept.sum(dim=1))
        loss_cls = self.loss_cls(
            logits[kept], labels[kept], label_weights[kept], avg_factor=avg_factor
        )
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox, "num_mined": kept.sum().float()}

    def _all_scores_loss(
        self,
        cls_scores: list[Tensor],
        level_labels: list[Tensor],
        level_weights: list[Tensor],
        avg_factor: Tensor,
    ) -> Tensor:
        """Returns the classification loss over all anchors; labels and weights are (N, rows)."""
        logits = flatten_levels(cls_scores, self.cls_out_channels).flatten(0, 1)
        labels, weights = (torch.cat(v, dim=1).flatten() for v in (level_labels, level_weights))
        return self.loss_cls(logits, labels, weights, avg_factor=avg_factor)

    def _each_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the (N,) weighted classification losses of (N, C) logits, with no divisor."""
        return self.loss_cls(logits, labels, reduction_override="none")

    @torch.no_grad()
    def _mine(
        self,
        miner: Miner,
        logits: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        anchors: Tensor,
        deltas: Tensor,
        box_targets: Tensor,
    ) -> Tensor:
        """Returns (N, number of anchors) booleans, True for what the miner keeps of each image."""
        kept = torch.zeros_like(labels, dtype=torch.bool)
        candidates = [weights.nonzero().squeeze(1) for weights in label_weights]
        images = [
            self._examples(
                *(values[i, rows] for values in (logits, labels, anchors, deltas, box_targets))
            )
            for i, rows in enumerate(candidates)
        ]
        for i, chosen in enumerate(miner.mine(images)):
            kept[i, candidates[i][chosen]] = True
        return kept

    def _examples(
        self, logits: Tensor, labels: Tensor, anchors: Tensor, deltas: Tensor, box_targets: Tensor
    ) -> Examples:
        """Returns what a miner may look at; the arguments have a row for each example."""
        is_positive = labels < self.num_classes
        decoded = self.bbox_coder.decode(anchors, deltas)
        boxes = decoded if self.reg_decoded_bbox else deltas
        box_losses = logits.new_zeros(len(labels))
        each = self.loss_bbox(
            boxes[is_positive], box_targets[is_positive], reduction_override="none"
        )
        box_losses[is_positive] = each.flatten(1).sum(1) if each.dim() > 1 else each
        return Examples(
            cls_losses=self._each_loss(logits, labels),
            box_losses=box_losses,
            is_positive=is_positive,
            classes=torch.where(is_positive, labels, logits[:, : self.num_classes].argmax(dim=1)),
            anchors=anchors,
            decoded=decoded,
        )


def flatten_levels(maps: list[Tensor], width: int) -> Tensor:
    """Returns (N, sum(H * W * A), width) in float32, a row for each anchor of all levels in order.

    The map of a level is (N, A * width, H, W); ``width`` is K for scores, 4 for deltas.
    """
    rows = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in maps]
    return torch.cat(rows, dim=1).float()
