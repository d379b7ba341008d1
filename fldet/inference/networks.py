"""What of a detector goes into an exported file: its network, with or without post-processing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fldet.errors import UsageError
from fldet.models.dense_heads.anchor_loss import flatten_levels
from fldet.models.dense_heads.yolov2_head import YOLOv2Head
from fldet.models.task_modules import TorchvisionAnchorGenerator

Maps = Sequence[Sequence[Tensor]]  # what a head gives: of each kind a map for each level


class RawMaps(nn.Module):
    """The network alone: class logits of all levels, then box deltas of all levels.

    Of YOLOv2 it is the one map of its head.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        levels = range(self.model.bbox_head.prior_generator.num_levels)
        kinds = kinds_of_maps(self.model.bbox_head)
        return [f"{kind}_{level}" for kind in kinds for level in levels]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns for each level (N, A * K, h, w), then for each level (N, A * 4, h, w)."""
        kinds = self.model.bbox_head(self.model.extract_feat(images))
        return tuple(level for levels in kinds for level in levels)


def kinds_of_maps(head: Any) -> tuple[str, ...]:
    """Returns what a head gives for each level, in order."""
    return ("pred_map",) if isinstance(head, YOLOv2Head) else ("cls_score", "bbox_pred")


class WithBoxes(nn.Module):
    """The network with MMDetection's post-processing, plain NMS, for a whole batch."""

    COUNT = "nms_pre"  # which line of test_cfg says how many boxes go to NMS
    outputs = ("boxes", "scores", "labels", "image")

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        if isinstance(self.model.bbox_head.prior_generator, TorchvisionAnchorGenerator):
            raise UsageError(
                "anchors whose strides depend on the size of the image cannot be exported",
                expected="fldet.AnchorGenerator",
                hint="--post-process outside",
            )
        cfg = self.model.bbox_head.test_cfg
        nms = cfg.get("nms") or {}
        self.score_thr, self.limit = float(cfg.score_thr), int(cfg.max_per_img)
        self.nms_pre = int(cfg.get(self.COUNT, -1))
        self.iou_threshold = nms.get("iou_threshold")
        self.is_agnostic = bool(nms.get("class_agnostic", False))
        plain_nms = nms.get("type", "nms") == "nms" and self.iou_threshold
        if not plain_nms or self.nms_pre < 1 or self.limit < 1 or cfg.get("min_bbox_size", 0) > 0:
            raise UsageError(
                f"test_cfg {cfg.to_dict()} cannot be exported",
                expected=f"nms of type 'nms', {self.COUNT} and max_per_img above 0, "
                "min_bbox_size 0",
                hint="--post-process outside",
            )

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Returns the boxes of all images, best first within each.

        Args:
            images: (N, 3, H, W), normalized and padded.
            sizes: (N, 2) float32, height and width of each image before padding, in pixels.

        Returns:
            (T, 4) boxes xyxy in pixels of the input, (T,) scores, (T,) labels, (T,) image numbers.
        """
        maps = self.model.bbox_head(self.model.extract_feat(images))
        limits = sizes.flip(1).repeat(1, 2).unsqueeze(1)
        boxes, scores, labels = self._candidates(maps, limits)
        moved = boxes if self.is_agnostic else boxes + self._offsets(boxes, scores, labels)
        chosen = select(moved, scores[:, None], self.iou_threshold, self.score_thr, self.limit)
        image, row = chosen[:, 0], chosen[:, 2]
        found = torch.minimum(boxes[image, row].clamp(min=0), limits[image, 0])
        return found, scores[image, row], labels[image, row], image

    def _candidates(self, maps: Maps, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what goes to NMS: boxes (N, M, 4), scores (N, M) and labels (N, M).

        The maps are those of the head, ``limits`` (N, 1, 4) the size of each image, as a box.
        """
        levels = enumerate(zip(*maps, strict=True))
        best = [self._best(level, *of_level) for level, of_level in levels]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        has_area = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        return boxes, torch.where(has_area, scores, torch.zeros_like(scores)), labels

    def _best(self, level: int, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes (N, k, 4), scores (N, k) and labels of a level's best anchors and classes.

        There are always k; where the level has fewer, the rest have the score 0.
        """
        head, (scores, deltas) = self.model.bbox_head, maps
        count = scores.shape[0]
        anchors = head.prior_generator.single_level_grid_priors(
            (scores.shape[2], scores.shape[3]), level, device=scores.device
        )
        logits = scores.permute(0, 2, 3, 1)
        if not head.use_sigmoid_cls:
            logits = logits.reshape(count, -1, head.cls_out_channels).softmax(dim=2)[..., :-1]
        logits = logits.flatten(1)
        filling = logits.new_full((count, self.nms_pre), float("-inf"))
        top, place = torch.cat([logits, filling], dim=1).topk(self.nms_pre, dim=1)
        place = torch.where(torch.isinf(top), torch.zeros_like(place), place)
        anchor, label = place // head.num_classes, place % head.num_classes
        deltas = deltas.permute(0, 2, 3, 1).reshape(count, -1, 4)
        best = top.sigmoid() if head.use_sigmoid_cls else top.clamp(min=0)
        return self._decoded(anchors, deltas, anchor), best, label

    def _decoded(self, anchors: Tensor, deltas: Tensor, rows: Tensor) -> Tensor:
        """Returns the boxes (N, M, 4) of rows (N, M) of anchors (A, 4) with deltas (N, A, 4)."""
        chosen = deltas.gather(1, rows.unsqueeze(2).expand(-1, -1, 4))
        decode = self.model.bbox_head.bbox_coder.decode
        flat = decode(anchors[rows].reshape(-1, 4), chosen.reshape(-1, 4))
        return flat.reshape(deltas.shape[0], -1, 4)

    def _offsets(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Returns (N, M, 1): moved by these, boxes of different classes do not touch."""
        counted = (scores > self.score_thr).unsqueeze(2)
        counting = torch.where(counted, boxes, torch.zeros_like(boxes))
        span = counting.amax(dim=(1, 2)) - counting.amin(dim=(1, 2))
        return (labels.to(boxes) * (span[:, None] + 1)).unsqueeze(2)


class WithBoxesOfClasses(WithBoxes):
    """The network with the post-processing of the authors of SSD, the best of each class first.

    Boxes go to NMS as they are predicted, and are clipped to the image afterwards; see
    ``fldet.SSDHead.predict_by_feat``.
    """

    COUNT = "nms_pre_per_class"

    def _candidates(self, maps: Maps, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del limits
        cls_scores, bbox_preds = map(list, maps)
        head = self.model.bbox_head
        anchors = head.prior_generator.grid_priors(
            [maps.shape[-2:] for maps in cls_scores], device=cls_scores[0].device
        )
        logits = flatten_levels(cls_scores, head.cls_out_channels)
        scores = logits.softmax(dim=2)[..., :-1].transpose(1, 2)
        top, rows = scores.topk(min(self.nms_pre, scores.shape[2]), dim=2)
        labels = torch.arange(head.num_classes, device=top.device)[None, :, None].expand_as(top)
        deltas = flatten_levels(bbox_preds, 4)
        boxes = self._decoded(torch.cat(anchors), deltas, rows.flatten(1))
        return boxes, top.flatten(1), labels.flatten(1)


class WithBoxesOfCells(WithBoxes):
    """The network with the post-processing of YOLOv2, whose boxes are not deltas of anchors."""

    def _best(self, level: int, *maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del level
        (pred_map,) = maps
        best: tuple[Tensor, Tensor, Tensor] = self.model.bbox_head.candidates(
            pred_map, self.nms_pre
        )
        return best


def network_with_boxes(model: Any) -> WithBoxes:
    """Returns a detector's network with the post-processing that its head has."""
    if isinstance(model.bbox_head, YOLOv2Head):
        return WithBoxesOfCells(model)
    per_class = model.bbox_head.test_cfg.get("nms_pre_per_class")
    return (WithBoxesOfClasses if per_class else WithBoxes)(model)


@torch.library.custom_op("fldet::select", mutates_args=())
def select(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_thr: float, limit: int
) -> Tensor:
    """Returns (T, 3) rows of image, 0 and box: what ONNX's NonMaxSuppression returns.

    Boxes are (N, M, 4) xyxy, scores (N, 1, M). A box goes if it overlaps a better one by more than
    ``iou_threshold``; only scores above ``score_thr`` count, and ``limit`` boxes of an image.
    """
    from fldet.ops.nms import nms

    rows = [torch.zeros(0, 3, dtype=torch.long)]
    for image, (some, score) in enumerate(zip(boxes, scores[:, 0], strict=True)):
        valid = (score > score_thr).nonzero()[:, 0]
        kept = valid[nms(some[valid], score[valid], iou_threshold)[:limit]]
        rows.append(torch.stack([torch.full_like(kept, image), torch.zeros_like(kept), kept], 1))
    return torch.cat(rows)


@select.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float, score_thr: float, limit: int) -> Tensor:
    del scores, iou, score_thr, limit
    rows = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((rows, 3), dtype=torch.long)
