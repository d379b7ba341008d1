"""RetinaNet's head: two subnetworks on every level, labels for anchors, and the loss (Sec. 4)."""

from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead as MMDetRetinaHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from fldet.models.dense_heads.post_process import (
    gather_deltas,
    is_plain_nms,
    select_candidates,
    suppress,
)
from fldet.models.losses.sigmoid_loss import SigmoidLoss
from fldet.models.task_modules.miners import Examples, Miner
from fldet.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class RetinaHead(MMDetRetinaHead):
    """Classification and box subnets shared over the levels, trained on all anchors at once.

    The layers and their names are those of MMDetection's head, so that its checkpoints load. The
    loss follows the paper: the sum over all anchors of an image, divided by the number of anchors
    assigned to a box (Sec. 4.1). With ``train_cfg.miner`` the sum is over the anchors that the
    miner keeps (Sec. 5.1); the box loss is over all assigned anchors in any case.

    Args:
        num_classes: K, without background.
        in_channels: channels of every level of the pyramid.
        prior_prob: pi, the score of every anchor at the start (Sec. 4.1); None starts the last
            layer without a prior, as the paper's diverging baseline does.
        feat_channels: channels of the subnets.
        stacked_convs: 3x3 convolutions of each subnet before its output layer.
        normalizer: config of what the sums are divided by, ``fldet.CountOverRanks`` if None; see
            ``fldet.losses.normalizers``.
        **kwargs: ``anchor_generator``, ``bbox_coder``, ``loss_cls``, ``loss_bbox``, ``train_cfg``,
            ``test_cfg``, ``norm_cfg``, ``conv_cfg``, ``reg_decoded_bbox`` of MMDetection's head.

    Raises:
        ValueError: ``loss_cls`` does not say ``use_sigmoid=True``, or ``prior_prob`` is not in
            (0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        prior_prob: float | None = 0.01,
        feat_channels: int = 256,
        stacked_convs: int = 4,
        normalizer: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        loss_cls = kwargs.get("loss_cls", {})
        if loss_cls.get("use_sigmoid") is not True:
            raise ValueError(
                "loss_cls needs use_sigmoid=True: without it K + 1 softmax outputs would be built, "
                f"got {loss_cls}"
            )
        if prior_prob is not None and not 0 < prior_prob < 1:
            raise ValueError(f"prior_prob must be None or in (0, 1), got {prior_prob}")
        kwargs.setdefault("init_cfg", _gaussian_init(prior_prob))
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            **kwargs,
        )
        normalizer = normalizer or {"type": "fldet.CountOverRanks"}
        self.normalizer = MODELS.build(normalizer)
        miner = (self.train_cfg or {}).get("miner")
        self.miner: Miner | None = miner and TASK_UTILS.build(miner)
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
        if self.miner is None and isinstance(self.loss_cls, SigmoidLoss):
            per_map = [
                [v.view(s.shape[0], *s.shape[-2:], -1) for v, s in zip(vs, cls_scores, strict=True)]
                for vs in (level_labels, level_weights)
            ]
            loss_cls = self.loss_cls(cls_scores, *per_map, avg_factor=avg_factor)
            return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}

        logits = flatten_levels(cls_scores, self.cls_out_channels)
        if self.miner is None:
            loss_cls = self.loss_cls(
                *(logits.flatten(0, 1), labels.flatten(), label_weights.flatten()),
                avg_factor=avg_factor,
            )
            return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}

        kept = self._mine(self.miner, logits, labels, label_weights, flat_anchors, deltas, targets)
        if self.miner.divisor == "selected":
            avg_factor = self.selected_normalizer(kept.sum(dim=1))
        loss_cls = self.loss_cls(
            logits[kept], labels[kept], label_weights[kept], avg_factor=avg_factor
        )
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox, "num_mined": kept.sum().float()}

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
            cls_losses=self.loss_cls.loss_weight * self.loss_cls.per_anchor(logits, labels),
            box_losses=box_losses,
            is_positive=is_positive,
            classes=torch.where(is_positive, labels, logits.argmax(dim=1)),
            anchors=anchors,
            decoded=decoded,
        )

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        batch_img_metas: list[dict[str, Any]] | None = None,
        cfg: Any = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Returns the detections of each image: ``bboxes``, ``scores``, ``labels``, best first.

        They are those of MMDetection's head, which ``test_cfg.post_process='stock'`` calls. Half
        types are computed in float32 from the logits on, anchors included; there in their own type.

        Args:
            cls_scores: for each level (N, A * K, H, W) raw scores.
            bbox_preds: for each level (N, A * 4, H, W) box deltas.
            score_factors: of other heads; MMDetection's own code takes them.
            batch_img_metas: for each image ``img_shape``, and ``scale_factor`` to rescale.
            cfg: ``test_cfg`` if None.
            rescale: boxes in pixels of the original image, not of the network's input.
            with_nms: False returns all candidates, level by level.

        Raises:
            ValueError: ``post_process`` is neither ``lean`` nor ``stock``.
        """
        cfg = self.test_cfg if cfg is None else cfg
        way = cfg.get("post_process", "lean")
        if way not in ("lean", "stock"):
            raise ValueError(f"test_cfg.post_process must be lean or stock, got {way!r}")
        activation = getattr(self.loss_cls, "custom_cls_channels", False)
        if way == "stock" or score_factors is not None or activation:
            return super().predict_by_feat(
                cls_scores, bbox_preds, score_factors, batch_img_metas, cfg, rescale, with_nms
            )
        return [
            self._predict_image(
                [level[i].detach() for level in cls_scores],
                [level[i].detach() for level in bbox_preds],
                meta,
                cfg,
                rescale=rescale,
                with_nms=with_nms,
            )
            for i, meta in enumerate(batch_img_metas or ())
        ]

    def _predict_image(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        meta: dict[str, Any],
        cfg: Any,
        *,
        rescale: bool,
        with_nms: bool,
    ) -> InstanceData:
        """Returns the detections of one image; the maps are (A * K, H, W) and (A * 4, H, W)."""
        scores, labels, deltas, anchors = [], [], [], []
        for level, (logits, boxes) in enumerate(zip(cls_scores, bbox_preds, strict=True)):
            best, label, rows = select_candidates(
                logits,
                self.cls_out_channels,
                score_thr=cfg.get("score_thr", 0),
                nms_pre=cfg.get("nms_pre", -1),
            )
            scores.append(best)
            labels.append(label)
            deltas.append(gather_deltas(boxes, rows, self.bbox_coder.encode_size))
            anchors.append(
                self.prior_generator.sparse_priors(
                    rows, logits.shape[-2:], level, best.dtype, best.device
                )
            )
        results = InstanceData(
            bboxes=self.bbox_coder.decode(
                torch.cat(anchors), torch.cat(deltas), max_shape=meta["img_shape"]
            ),
            scores=torch.cat(scores),
            labels=torch.cat(labels),
        )
        plain = with_nms and is_plain_nms(cfg.get("nms"), len(results))
        results = self._bbox_post_process(
            results, cfg, rescale=rescale, with_nms=with_nms and not plain, img_meta=meta
        )
        if not plain or len(results) == 0:
            return results
        limit = cfg.max_per_img
        keep = suppress(
            get_box_tensor(results.bboxes),
            results.scores,
            results.labels,
            iou_threshold=cfg.nms.iou_threshold,
            class_agnostic=cfg.nms.get("class_agnostic", False),
            max_keep=limit if limit >= 0 else None,
        )
        # MMDetection slices with any number: -1 leaves out the last box.
        return results[keep][: limit if limit < 0 else None]


def flatten_levels(maps: list[Tensor], width: int) -> Tensor:
    """Returns (N, sum(H * W * A), width) in float32, a row for each anchor of all levels in order.

    The map of a level is (N, A * width, H, W); ``width`` is K for scores, 4 for deltas.
    """
    rows = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in maps]
    return torch.cat(rows, dim=1).float()


def _gaussian_init(prior_prob: float | None) -> dict[str, Any]:
    """All new convolutions: sigma 0.01 and zero bias, but for the prior of the last one."""
    init: dict[str, Any] = {"type": "Normal", "layer": "Conv2d", "std": 0.01}
    if prior_prob is not None:
        init["override"] = {
            "type": "Normal",
            "name": "retina_cls",
            "std": 0.01,
            "bias_prob": prior_prob,
        }
    return init
