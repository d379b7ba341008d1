"""YOLOv2's head: one convolution predicts boxes, objectness and classes (arXiv 1612.08242)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules import YOLOAnchorGenerator
from mmdet.models.utils import multi_apply
from mmdet.structures.bbox import get_box_tensor
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from fldet.models.dense_heads.region_loss import (
    RegionSettings,
    Truth,
    in_cells,
    region_loss,
    truth_of,
)
from fldet.registry import MODELS

# Of the authors' yolov2.cfg: found by k-means over the boxes of COCO.
PRIORS = (
    (0.57273, 0.677385),
    (1.87446, 2.06253),
    (3.33843, 5.47434),
    (7.88282, 3.52778),
    (9.77052, 9.16828),
)


@MODELS.register_module()
class YOLOv2Head(BaseDenseHead):
    """Five boxes in each cell of one map, each with an objectness and a softmax over the classes.

    The channels of a prior are x, y, w, h, objectness, classes, as in darknet's files. A box has
    its centre at sigmoid(x), sigmoid(y) from the corner of its cell and the size of its prior times
    exp(w), exp(h); its score for a class is sigmoid(objectness) times the probability of the class.

    ``seen`` counts the images of a training, over all processes: it is saved in checkpoints, as in
    darknet's files, so that a resumed run goes on with it.

    Args:
        num_classes: K.
        in_channels: of the map.
        priors: width and height of each prior, in cells.
        stride: side of a cell, in pixels of the network's input.
        train_cfg: the attributes of ``RegionSettings`` that are to be others.
        test_cfg: ``score_thr``; ``nms_pre``, how many boxes with a class go on to ``nms``, the best
            ones (-1: all); ``max_per_img``.
        init_cfg: as of every module.

    Raises:
        TypeError: ``train_cfg`` has an unknown name.
        ValueError: a setting or a prior is out of range.
    """

    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        priors: Sequence[Sequence[float]] = PRIORS,
        stride: int = 32,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or {"type": "Kaiming", "layer": "Conv2d", "mode": "fan_in"})
        if not priors or min(side for prior in priors for side in prior) <= 0:
            raise ValueError(f"priors must be widths and heights above 0, got {priors}")
        self.num_classes, self.stride = num_classes, stride
        self.settings = RegionSettings(**(train_cfg or {}))
        self.test_cfg = test_cfg
        sizes = [tuple(side * stride for side in prior) for prior in priors]
        self.prior_generator = YOLOAnchorGenerator(strides=[stride], base_sizes=[sizes])
        self.conv = nn.Conv2d(in_channels, len(priors) * (5 + num_classes), 1)
        # no buffer: an optimized copy in bfloat16 would round it
        self.priors = tuple((float(width), float(height)) for width, height in priors)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor]]:
        """Returns a list with the raw predictions, (N, A * (5 + K), H, W), for one map."""
        outputs: tuple[list[Tensor]] = multi_apply(self.forward_single, maps)
        return outputs

    def forward_single(self, x: Tensor) -> tuple[Tensor]:
        """Returns the raw predictions of one (N, C, H, W) map."""
        return (self.conv(x),)

    def loss_by_feat(
        self,
        pred_maps: list[Tensor],
        batch_gt_instances: list[Any],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        """Returns ``loss_bbox``, ``loss_obj`` and ``loss_cls`` as ``region_loss`` does.

        The images of a training are counted before, as by darknet. In evaluation mode no box is
        pulled to its prior, and the first ``max_truths`` boxes of an image count.

        Args:
            pred_maps: one map of raw predictions; half types are computed in float32.
            batch_gt_instances: for each image ``bboxes`` (M, 4) in pixels of the network's input
                and ``labels`` (M,).
            batch_img_metas: not read.
            batch_gt_instances_ignore: not read; darknet knows no crowd regions.
        """
        del batch_img_metas, batch_gt_instances_ignore
        (pred_map,) = pred_maps
        height, width = pred_map.shape[-2:]
        if self.training:
            self.seen += len(pred_map) * get_world_size()
        pulling = (self.seen < self.settings.prior_images) & self.training
        with torch.autocast(pred_map.device.type, enabled=False):
            values = self._by_prior(pred_map.float())
            truths = [self._truth(one, (height, width)) for one in batch_gt_instances]
            pull = self.settings.prior_scale * pulling.float()
            return region_loss(values, truths, values.new_tensor(self.priors), self.settings, pull)

    def _truth(self, instances: Any, shape: tuple[int, int]) -> Truth:
        """Returns the boxes of an image that count on a map of (H, W) cells.

        In training boxes beyond ``max_truths`` have their turn: which ones count is drawn from
        torch's generator, of the CPU on every device, and only where there are more.
        """
        boxes, labels = get_box_tensor(instances.bboxes), instances.labels
        most = self.settings.max_truths
        if self.training and len(boxes) > most:
            drawn = torch.randperm(len(boxes))[:most].to(boxes.device)
            boxes, labels = boxes[drawn], labels[drawn]
        return truth_of(boxes, labels, stride=self.stride, shape=shape, most=most)

    def candidates(self, pred_map: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the best boxes with a class of each image, best first.

        Args:
            pred_map: (N, A * (5 + K), H, W) raw predictions; half types are computed in float32.
            most: M, how many of each image; where it has fewer, the rest have the score 0.

        Returns:
            (N, M, 4) boxes xyxy in pixels of the input, (N, M) scores and (N, M) labels.
        """
        boxes, scores = self.decode(pred_map.float())
        flat = scores.flatten(1)
        top, place = torch.cat([flat, flat.new_zeros(len(flat), most)], dim=1).topk(most, dim=1)
        place = torch.where(place < flat.shape[1], place, torch.zeros_like(place))
        rows = place // self.num_classes
        return boxes.gather(1, rows[:, :, None].expand(-1, -1, 4)), top, place % self.num_classes

    def decode(self, pred_map: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (N, A * H * W, 4) boxes xyxy in pixels of the input and (N, A * H * W, K) scores.

        ``pred_map`` is (N, A * (5 + K), H, W) in float32.
        """
        values = self._by_prior(pred_map)
        activated = torch.cat([values[:, :, :2].sigmoid(), values[:, :, 2:4]], dim=2)
        boxes = in_cells(activated, values.new_tensor(self.priors)) * self.stride
        centres, halves = boxes[:, :, :2], boxes[:, :, 2:] / 2
        corners = torch.cat([centres - halves, centres + halves], dim=2)
        scores = values[:, :, 4:5].sigmoid() * values[:, :, 5:].softmax(dim=2)
        in_rows = [x.permute(0, 1, 3, 4, 2).flatten(1, 3) for x in (corners, scores)]
        return in_rows[0], in_rows[1]

    def predict_by_feat(
        self,
        pred_maps: list[Tensor],
        batch_img_metas: list[dict[str, Any]] | None = None,
        cfg: Any = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Returns the detections of each image: ``bboxes``, ``scores``, ``labels``, best first.

        Args:
            pred_maps: one map of raw predictions.
            batch_img_metas: for each image ``img_shape``, and ``scale_factor`` to rescale.
            cfg: ``test_cfg`` if None.
            rescale: boxes in pixels of the original image, not of the network's input.
            with_nms: False returns all candidates.
        """
        cfg = self.test_cfg if cfg is None else cfg
        (pred_map,) = pred_maps
        most = int(cfg.get("nms_pre", -1))
        if most < 0:
            most = pred_map[0].numel()
        found = []
        for *best, meta in zip(
            *self.candidates(pred_map, most), batch_img_metas or (), strict=True
        ):
            boxes, scores, labels = (x[best[1] > cfg.get("score_thr", 0.0)] for x in best)
            height, width = meta["img_shape"][:2]
            boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height] * 2))
            results = InstanceData(bboxes=boxes, scores=scores, labels=labels)
            found.append(
                self._bbox_post_process(
                    results, cfg, rescale=rescale, with_nms=with_nms, img_meta=meta
                )
            )
        return found

    def _by_prior(self, pred_map: Tensor) -> Tensor:
        """Returns (N, A * (5 + K), H, W) predictions as (N, A, 5 + K, H, W)."""
        count, _, height, width = pred_map.shape
        return pred_map.reshape(count, len(self.priors), 5 + self.num_classes, height, width)
