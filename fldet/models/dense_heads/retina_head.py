"""RetinaNet's head: two subnetworks on every level, labels for anchors, and the loss (Sec. 4)."""

from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead as MMDetRetinaHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from fldet.models.dense_heads.anchor_loss import AnchorLoss
from fldet.models.dense_heads.post_process import (
    gather_deltas,
    is_plain_nms,
    select_candidates,
    suppress,
)
from fldet.models.losses.sigmoid_loss import SigmoidLoss
from fldet.models.task_modules.torchvision_anchors import fitted_to
from fldet.registry import MODELS


@MODELS.register_module()
class RetinaHead(AnchorLoss, MMDetRetinaHead):
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
        miner = (self.train_cfg or {}).get("miner")
        self._set_up_loss(normalizer or {"type": "fldet.CountOverRanks"}, miner)

    def _all_scores_loss(
        self,
        cls_scores: list[Tensor],
        level_labels: list[Tensor],
        level_weights: list[Tensor],
        avg_factor: Tensor,
    ) -> Tensor:
        if not isinstance(self.loss_cls, SigmoidLoss):
            return super()._all_scores_loss(cls_scores, level_labels, level_weights, avg_factor)
        labels, weights = (
            [v.view(s.shape[0], *s.shape[-2:], -1) for v, s in zip(values, cls_scores, strict=True)]
            for values in (level_labels, level_weights)
        )
        return self.loss_cls(cls_scores, labels, weights, avg_factor=avg_factor)

    def _each_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss_cls.loss_weight * self.loss_cls.per_anchor(logits, labels)

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
        generator = fitted_to(self.prior_generator, [maps.shape[-2:] for maps in cls_scores])
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
                generator.sparse_priors(rows, logits.shape[-2:], level, best.dtype, best.device)
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
