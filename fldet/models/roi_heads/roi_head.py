"""The second stage of Faster R-CNN+++ (He et al., arXiv 1512.03385, Appendix B)."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from fldet.errors import ConfigError
from fldet.models.roi_heads.boxes import lower_scales, vote
from fldet.registry import MODELS

Maps = tuple[Tensor, ...]


@MODELS.register_module()
class RoIHead(StandardRoIHead):
    """MMDetection's RoI head with three additions, each of them an option.

    Without any it computes what MMDetection's computes. Only ``context`` has weights: it doubles
    the inputs of ``fc_cls`` and ``fc_reg``; the names stay. The others are for testing. What the
    paper leaves open is DEVIATION D36.

    Args:
        context: the vector of the whole image is put beside that of each region, in training too.
        refine: how often a region is pooled again, from the box that the class of its highest score
            gave it. Suppression sees the boxes of all rounds together.
        vote_iou: boxes that are kept become means of those of their class with this IoU or more,
            weighted by score (``fldet.models.roi_heads.boxes.vote``); None leaves them.
        test_scales: shorter sides of the image in pixels, ascending. Each region is pooled at two
            neighbouring ones (``lower_scales``), and the larger value of each channel counts. The
            detector is ``fldet.FasterRCNN``, whose backbone or neck gives one map.
        input_scale: the one of ``test_scales`` that images come in.
        scale_side: side of a region in pixels by which the scales are chosen.
        **kwargs: ``shared_head``, ``bbox_roi_extractor``, ``bbox_head``, ``train_cfg`` and
            ``test_cfg`` of MMDetection's head. With ``context`` or ``test_scales`` the
            ``bbox_head`` averages over each region (``with_avg_pool``); its ``in_channels`` are
            those of a region.

    Raises:
        ValueError: an option is out of range, or does not fit ``bbox_head`` or extractor.
    """

    def __init__(
        self,
        *,
        context: bool = False,
        refine: int = 0,
        vote_iou: float | None = None,
        test_scales: Sequence[float] | None = None,
        input_scale: float | None = None,
        scale_side: float = 224.0,
        **kwargs: Any,
    ) -> None:
        if refine < 0:
            raise ValueError(f"refine must be >= 0, got {refine}")
        if vote_iou is not None and not 0 < vote_iou <= 1:
            raise ValueError(f"vote_iou must be None or in (0, 1], got {vote_iou}")
        self.scale_factors = scale_factors(test_scales, input_scale) if test_scales else ()
        self.test_scales = tuple(test_scales or ())
        self.context, self.refine, self.vote_iou = context, refine, vote_iou
        self.scale_side = scale_side
        super().__init__(**kwargs)

    def init_bbox_head(self, bbox_roi_extractor: Any, bbox_head: Any) -> None:
        """Builds extractor and box head, the latter for vectors where they are made here."""
        if self._has_vectors:
            if not bbox_head.get("with_avg_pool"):
                raise ValueError("context and test_scales need a bbox_head with_avg_pool=True")
            if self.test_scales and len(bbox_roi_extractor["featmap_strides"]) > 1:
                raise ValueError("test_scales need a bbox_roi_extractor of one map")
            width = bbox_head.get("in_channels", 256) * (2 if self.context else 1)
            bbox_head = {**bbox_head, "in_channels": width, "roi_feat_size": 1}
        super().init_bbox_head(bbox_roi_extractor, bbox_head)

    @property
    def _has_vectors(self) -> bool:
        """Whether regions become vectors here, and not in the box head."""
        return self.context or bool(self.test_scales)

    # --- with the whole image among the maps ---

    def forward(
        self, x: Maps, rpn_results_list: Any, batch_data_samples: Any
    ) -> tuple[Tensor, ...]:
        """Returns scores (R, K + 1) and deltas (R, 4 * K) of the proposals of all images."""
        return super().forward(self._with_images(x, _metas(batch_data_samples)), rpn_results_list)

    def loss(self, x: Maps, rpn_results_list: Any, batch_data_samples: Any) -> dict[str, Any]:
        """Returns the losses of MMDetection's head, with the context if there is one."""
        x = self._with_images(x, _metas(batch_data_samples))
        return super().loss(x, rpn_results_list, batch_data_samples)

    def predict_bbox(
        self,
        x: Maps,
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: Any,
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Returns ``bboxes``, ``scores`` and ``labels`` of each image.

        Args:
            x: maps of the images, or a map for each of ``test_scales``.
            batch_img_metas: with ``img_shape`` and ``scale_factor``.
            rpn_results_list: ``bboxes`` (R, 4) of each image, in pixels of the inputs.
            rcnn_test_cfg: ``score_thr``, ``nms`` and ``max_per_img``.
            rescale: whether boxes are in pixels of the files.

        Raises:
            ConfigError: there are other maps than one for each of ``test_scales``.
        """
        if self.test_scales and len(x) != len(self.test_scales):
            raise ConfigError(
                f"model.roi_head.test_scales: {len(x)} maps for {len(self.test_scales)} scales",
                expected="a detector that makes a map of each scale",
                hint="--cfg-options model.type=fldet.FasterRCNN",
            )
        x = self._with_images(x, batch_img_metas)
        counts = [len(one.bboxes) for one in rpn_results_list]
        if not sum(counts) or not (self.refine or self.vote_iou is not None):
            return super().predict_bbox(
                x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale
            )
        rois = bbox2roi([one.bboxes for one in rpn_results_list])
        union = self._rounds(x, rois, counts, batch_img_metas)
        predict = self.bbox_head.predict_by_feat
        if self.vote_iou is None:
            return predict(*union, batch_img_metas, rcnn_test_cfg, rescale)
        candidates = predict(*union, batch_img_metas, None, rescale)
        return [voted(one, rcnn_test_cfg, self.vote_iou) for one in candidates]

    # --- box refinement and voting ---

    def _rounds(
        self, x: Maps, rois: Tensor, counts: list[int], metas: list[dict[str, Any]]
    ) -> list[tuple[Tensor, ...]]:
        """Returns regions, scores and deltas of all rounds, for each of them a tensor an image."""
        results = self._bbox_forward(x, rois)
        rounds = [_by_image(rois, results, counts)]
        for _ in range(self.refine):
            rois = self._refined(rounds[-1], metas)
            results = self._bbox_forward(x, rois)
            rounds.append(_by_image(rois, results, counts))
        return [
            tuple(map(torch.cat, zip(*of_rounds, strict=True)))
            for of_rounds in zip(*rounds, strict=True)
        ]

    def _refined(self, latest: tuple[Any, ...], metas: list[dict[str, Any]]) -> Tensor:
        """Returns the (R, 5) regions that the class of the highest score moves regions to."""
        return bbox2roi(
            [
                self.bbox_head.regress_by_class(
                    rois[:, 1:], scores[:, :-1].argmax(dim=1), deltas, meta
                )
                for rois, scores, deltas, meta in zip(*latest, metas, strict=True)
            ]
        )

    # --- vectors of regions ---

    def _with_images(self, x: Maps, metas: list[dict[str, Any]]) -> Maps:
        """Returns the maps and, for the context, (N, 4) boxes of whole images after them."""
        if not self.context:
            return x
        sizes = [meta["img_shape"][1::-1] for meta in metas]
        return (*x, x[0].new_tensor([[0, 0, *size] for size in sizes], dtype=torch.float32))

    def _bbox_forward(self, x: Maps, rois: Tensor) -> dict[str, Tensor]:
        if not self._has_vectors:
            return super()._bbox_forward(x, rois)
        if self.context:
            *maps, images = x
            # in one call with the regions, so that batch norms that learn see them together
            vectors = self.vectors(maps, torch.cat([rois, bbox2roi(list(images[:, None]))]))
            of_images = vectors[len(rois) :]
            vectors = torch.cat([vectors[: len(rois)], of_images[rois[:, 0].long()]], dim=1)
        else:
            vectors = self.vectors(x, rois)
        scores, deltas = self.bbox_head(vectors)
        return {"cls_score": scores, "bbox_pred": deltas, "bbox_feats": vectors}

    def vectors(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Returns the (R, C, 1, 1) averages of regions (R, 5), at two scales the larger values.

        Args:
            maps: of the image, or one for each of ``test_scales``.
            rois: as index of the image in the batch, x1, y1, x2, y2 in pixels of the inputs.
        """
        if not self.test_scales or len(maps) == 1:  # a training knows one scale
            return self._averages(maps, rois)
        lower = lower_scales(rois, self.scale_factors, self.scale_side)
        pairs = torch.cat([lower, lower + 1])  # the scales of each region, (2 * R)
        averages, places = [], []
        for index, (one, factor) in enumerate(zip(maps, self.scale_factors, strict=True)):
            here = (pairs == index).nonzero().flatten()
            if len(here):
                chosen = rois[here % len(rois)]
                scaled = torch.cat([chosen[:, :1], chosen[:, 1:] * factor], dim=1)
                averages.append(self._averages([one], scaled))
                places.append(here)
        vectors = torch.cat(averages)[torch.cat(places).argsort()]
        return torch.maximum(*vectors.chunk(2))

    def _averages(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        regions = self.bbox_roi_extractor(maps[: self.bbox_roi_extractor.num_inputs], rois)
        if self.with_shared_head:
            regions = self.shared_head(regions)
        return regions.mean(dim=(2, 3), keepdim=True)


def voted(candidates: InstanceData, cfg: Any, vote_iou: float) -> InstanceData:
    """Returns what suppression keeps of the boxes of one image, moved by ``vote``.

    Args:
        candidates: ``bboxes`` (R, 4 * K), or (R, 4) for all classes, and ``scores`` (R, K + 1).
        cfg: ``score_thr``, ``nms`` and ``max_per_img``. All candidates vote, so that detections do
            not depend on the threshold of their scores.
        vote_iou: see ``vote``.
    """
    boxes, scores = candidates.bboxes, candidates.scores
    kept, labels = multiclass_nms(boxes, scores, cfg.score_thr, cfg.nms, cfg.max_per_img)
    by_class = boxes.view(len(boxes), boxes.shape[1] // 4, 4).expand(-1, scores.shape[1] - 1, -1)
    moved = vote(kept[:, :4], by_class[:, labels], scores[:, labels], vote_iou)
    return InstanceData(bboxes=moved, scores=kept[:, 4], labels=labels)


def scale_factors(scales: Sequence[float], input_scale: float | None) -> tuple[float, ...]:
    """Returns the size of images at each scale over their size as they come.

    Raises:
        ValueError: fewer than two scales, not ascending, or without ``input_scale``.
    """
    if len(scales) < 2 or list(scales) != sorted(scales) or scales[0] <= 0:
        raise ValueError(f"test_scales must be two or more, ascending from above 0, got {scales}")
    if input_scale is None or input_scale not in scales:
        raise ValueError(f"input_scale must be one of test_scales, got {input_scale}")
    return tuple(scale / input_scale for scale in scales)


def _by_image(
    rois: Tensor, results: dict[str, Tensor], counts: list[int]
) -> tuple[tuple[Tensor, ...], ...]:
    """Returns regions, scores and deltas, for each of them a tensor an image."""
    values = rois, results["cls_score"], results["bbox_pred"]
    return tuple(torch.split(value, counts) for value in values)


def _metas(samples: Any) -> list[dict[str, Any]]:
    return [sample.metainfo for sample in samples]
