"""SSD's head: on each map one convolution for scores and one for boxes, trained with MultiBox."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import SSDHead as MMDetSSDHead
from mmdet.structures.bbox import scale_boxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from fldet.models.dense_heads.anchor_loss import AnchorLoss, flatten_levels
from fldet.models.dense_heads.post_process import suppress
from fldet.ops.nms import move_classes_apart
from fldet.registry import MODELS


@MODELS.register_module()
class SSDHead(AnchorLoss, MMDetSSDHead):
    """Softmax scores and boxes of every map of SSD (Liu et al. 2016, Sec. 2; DSSD, Sec. 3).

    Layers and their names are those of MMDetection's head, so that its checkpoints load; that head
    has no ``loss_cls``, and cannot be tested with MMDetection 3.2 and later. The loss is MultiBox:
    cross entropy over K + 1 classes of all positives and of the hardest negatives of each image,
    and smooth L1 of the positives, both summed and divided by the number of positives. A batch
    without positives has a loss of 0.

    Args:
        num_classes: K, without background, which has the last score of each box.
        in_channels: channels of each map.
        kernel_sizes: odd sides of the last convolutions of each map; 3 on all maps if None.
        loss_cls: ``mmdet.CrossEntropyLoss`` if None. The name needs its scope: ``fldet`` has a
            loss of this name too, of sigmoids.
        loss_bbox: ``mmdet.SmoothL1Loss`` if None, with the beta of ``train_cfg.smoothl1_beta``, 1
            if there is none.
        normalizer: what the sums are divided by; ``fldet.CountPerRank`` if None, the positives of
            the images on one GPU, as in the authors' code.
        **kwargs: ``anchor_generator``, ``bbox_coder``, ``stacked_convs``, ``feat_channels``,
            ``norm_cfg``, ``act_cfg``, ``train_cfg``, ``test_cfg`` and others of MMDetection's head.

    ``train_cfg.miner`` chooses the negatives: ``fldet.HardNegatives`` with ``neg_pos_ratio`` (3) if
    it is not there. ``test_cfg.nms_pre_per_class`` makes the post-processing that of the authors,
    see ``predict_by_feat``.

    Raises:
        ValueError: the number of ``kernel_sizes`` is not that of the maps, or one is even.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: Sequence[int] = (512, 1024, 512, 256, 256, 256),
        *,
        kernel_sizes: Sequence[int] | None = None,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
        normalizer: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, **kwargs)
        if kernel_sizes is not None:
            self._set_kernel_sizes(kernel_sizes)
        train_cfg = self.train_cfg or {}
        beta, ratio = train_cfg.get("smoothl1_beta", 1.0), train_cfg.get("neg_pos_ratio", 3)
        self.loss_cls = MODELS.build(loss_cls or {"type": "mmdet.CrossEntropyLoss"})
        self.loss_bbox = MODELS.build(loss_bbox or {"type": "mmdet.SmoothL1Loss", "beta": beta})
        self._set_up_loss(
            normalizer or {"type": "fldet.CountPerRank"},
            train_cfg.get("miner") or {"type": "fldet.HardNegatives", "ratio": ratio},
        )

    def _set_kernel_sizes(self, sizes: Sequence[int]) -> None:
        """Puts convolutions of other kernels in the place of the last ones."""
        if len(sizes) != len(self.cls_convs) or any(size % 2 == 0 for size in sizes):
            raise ValueError(
                f"kernel_sizes must be {len(self.cls_convs)} odd numbers, one a map, got {sizes}"
            )
        for towers in (self.cls_convs, self.reg_convs):
            for tower, size in zip(towers, sizes, strict=True):
                last = tower[-1]
                tower[-1] = nn.Conv2d(last.in_channels, last.out_channels, size, padding=size // 2)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Returns scores and deltas of each map.

        Args:
            features: (N, C, H, W) for each map.

        Returns:
            (N, A * (K + 1), H, W) raw scores and (N, A * 4, H, W) deltas for each map.
        """
        maps = [self.forward_single(x, level) for level, x in enumerate(features)]
        return [scores for scores, _ in maps], [deltas for _, deltas in maps]

    def forward_single(self, feature: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Returns raw scores and deltas of one map; see ``forward``."""
        return self.cls_convs[level](feature), self.reg_convs[level](feature)

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

        With ``test_cfg.nms_pre_per_class`` they are those of the authors' layer, DetectionOutput:
        of each class so many boxes of highest score, of all maps together, go to suppression as
        they were predicted; the best ``max_per_img`` are clipped to the image afterwards. Without
        it the code is MMDetection's: ``nms_pre`` of each map, clipped before suppression.

        Args:
            cls_scores: for each map (N, A * (K + 1), H, W) raw scores.
            bbox_preds: for each map (N, A * 4, H, W) deltas.
            score_factors: of other heads; not used.
            batch_img_metas: for each image ``img_shape``, and ``scale_factor`` to rescale.
            cfg: ``test_cfg`` if None.
            rescale: boxes in pixels of the original image, not of the network's input.
            with_nms: False returns what goes to suppression.

        Raises:
            ValueError: ``nms_pre_per_class`` with a suppression of another type than ``nms``.
        """
        cfg = ConfigDict(self.test_cfg if cfg is None else cfg)
        if "nms_pre_per_class" not in cfg:
            return super().predict_by_feat(
                cls_scores, bbox_preds, score_factors, batch_img_metas, cfg, rescale, with_nms
            )
        if cfg.nms.get("type", "nms") != "nms" or cfg.nms.get("class_agnostic"):
            raise ValueError(f"nms_pre_per_class needs nms of each class, got {cfg.nms}")
        logits = flatten_levels(cls_scores, self.cls_out_channels).detach()
        deltas = flatten_levels(bbox_preds, self.bbox_coder.encode_size).detach()
        priors = torch.cat(
            self.prior_generator.grid_priors(
                [maps.shape[-2:] for maps in cls_scores], logits.dtype, logits.device
            )
        )
        return [
            self._predict_image(
                scores, boxes, priors, meta, cfg, rescale=rescale, with_nms=with_nms
            )
            for scores, boxes, meta in zip(logits, deltas, batch_img_metas or (), strict=True)
        ]

    def _predict_image(
        self,
        logits: Tensor,
        deltas: Tensor,
        priors: Tensor,
        meta: dict[str, Any],
        cfg: ConfigDict,
        *,
        rescale: bool,
        with_nms: bool,
    ) -> InstanceData:
        """Returns the detections of one image; the first three have a row for each box."""
        scores, rows = best_of_each_class(logits, cfg.nms_pre_per_class)
        rank, labels = (scores > cfg.get("score_thr", 0)).nonzero().unbind(1)
        rows = rows[rank, labels]
        boxes = self.bbox_coder.decode(priors[rows], deltas[rows])
        found = InstanceData(bboxes=boxes, scores=scores[rank, labels], labels=labels)
        if with_nms and len(found):
            keep = suppress(
                move_classes_apart(boxes, labels),
                found.scores,
                labels,
                iou_threshold=cfg.nms.iou_threshold,
                class_agnostic=True,
                max_keep=cfg.max_per_img,
            )
            found = found[keep]
        height, width = meta["img_shape"][:2]
        found.bboxes = found.bboxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
        if rescale:
            found.bboxes = scale_boxes(found.bboxes, [1 / s for s in meta["scale_factor"]])
        return found


def best_of_each_class(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the highest scores of each class and their rows, both (k, K), best first.

    The scores are the softmax of (N, K + 1) logits, without that of the background, which is the
    last; k is ``count``, or N if that is less.
    """
    scores = logits.softmax(dim=1)[:, :-1]
    best = scores.topk(min(count, len(scores)), dim=0)
    return best.values, best.indices
