"""RetinaNet's head: two subnetworks on every level, labels for anchors, and the loss (Sec. 4)."""

from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead as MMDetRetinaHead
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor

from fldet.registry import MODELS


@MODELS.register_module()
class RetinaHead(MMDetRetinaHead):
    """Classification and box subnets shared over the levels, trained on all anchors at once.

    The layers and their names are those of MMDetection's head, so that its checkpoints load. The
    loss follows the paper: the sum over all anchors of an image, divided by the number of anchors
    assigned to a box (Sec. 4.1). That number is summed over the images of all processes, so that
    N processes with one image each take the same step as one process with N images.

    Args:
        num_classes: K, without background.
        in_channels: channels of every level of the pyramid.
        prior_prob: pi, the score of every anchor at the start (Sec. 4.1); None starts the last
            layer without a prior, as the paper's diverging baseline does.
        feat_channels: channels of the subnets.
        stacked_convs: 3x3 convolutions of each subnet before its output layer.
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
                with ``ignore_iof_thr`` >= 0.

        Returns:
            Two scalars in float32.
        """
        anchors, valid_flags = self.get_anchors(
            [score.shape[-2:] for score in cls_scores], batch_img_metas, cls_scores[0].device
        )
        labels, label_weights, box_targets, _, _ = self.get_targets(
            anchors, valid_flags, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )
        labels = torch.cat(labels, dim=1).flatten()
        label_weights = torch.cat(label_weights, dim=1).flatten()
        positive = (labels < self.num_classes).nonzero().squeeze(1)
        avg_factor = count_over_ranks(positive)

        loss_cls = self.loss_cls(
            flatten_levels(cls_scores, self.cls_out_channels),
            labels,
            label_weights,
            avg_factor=avg_factor,
        )
        boxes = flatten_levels(bbox_preds, self.bbox_coder.encode_size)[positive]
        if self.reg_decoded_bbox:
            flat_anchors = torch.cat([torch.cat(per_image) for per_image in anchors])
            boxes = self.bbox_coder.decode(flat_anchors[positive], boxes)
        loss_bbox = self.loss_bbox(
            boxes, torch.cat(box_targets, dim=1).flatten(0, 1)[positive], avg_factor=avg_factor
        )
        return {"loss_cls": loss_cls, "loss_bbox": loss_bbox}


def flatten_levels(maps: list[Tensor], width: int) -> Tensor:
    """Returns the maps of all levels as one row per anchor, image by image, in float32.

    Args:
        maps: for each level (N, A * width, H, W).
        width: numbers per anchor: K for scores, 4 for deltas.

    Returns:
        (N * sum(H * W * A), width), in the order of the anchors.
    """
    rows = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in maps]
    return torch.cat(rows, dim=1).flatten(0, 1).float()


def count_over_ranks(positive: Tensor) -> Tensor:
    """Returns the number of assigned anchors (at least 1) over all processes, per process.

    DistributedDataParallel averages the gradients of the processes, so dividing by this mean is
    dividing the sum over the images of all processes by their total number of positives.
    """
    count = positive.new_tensor(positive.numel(), dtype=torch.float)
    return reduce_mean(count).clamp(min=1 / get_world_size())


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
