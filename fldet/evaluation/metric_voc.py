"""The VOC figures as a metric of MMEngine's loops."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from fldet.errors import DataError, shorten
from fldet.evaluation.figures import VocFigures
from fldet.evaluation.ground_truth import GroundTruth, load_truth, restrict
from fldet.evaluation.metrics import category_ids_of, warn_of_no_box
from fldet.evaluation.voc import Floats, Marks, VocRule, boxes_by_image, match_image, summarize
from fldet.registry import METRICS


@METRICS.register_module()
class VOCMetric(BaseMetric):
    """Pascal VOC figures of a loop over a data set; see ``fldet.evaluation.voc``.

    Each image is matched as it comes, so that only scores and marks are kept and sent between
    processes. As in ``CocoMetric`` the images that were seen are evaluated, no others.

    Args:
        ann_file: COCO annotation file, crowd regions count as difficult; fldet fills in that of
            the data loader.
        dataset: in place of ``ann_file``, ``type`` and keywords of a data set in another format;
            fldet fills in that of the data loader.
        iou_thr: lowest IoU of a right detection with its box.
        plus_one: whether a box is x2 - x1 + 1 wide, as in VOC's development kit.
        collect_device: where results of several processes meet, ``cpu`` or ``gpu``.
        prefix: of the names of the figures: ``voc/mAP``, ``voc/mAP_11``.

    Attributes:
        figures: result of the last evaluation, None before it.
    """

    default_prefix = "voc"

    def __init__(
        self,
        ann_file: str | None = None,
        dataset: Mapping[str, Any] | None = None,
        iou_thr: float = 0.5,
        plus_one: bool = True,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.dataset = dataset
        self.rule = VocRule(iou_thr, plus_one)
        self.figures: VocFigures | None = None
        self._truth: GroundTruth | None = None
        self._category_ids: list[int | None] = []
        self._boxes: dict[Hashable, dict[int, tuple[Floats, Marks]]] = {}

    @property
    def truth(self) -> GroundTruth:
        """The annotations of the classes of the data set, read once.

        Raises:
            DataError: there are none, they are malformed, or a class is not in them.
        """
        if self._truth is None:
            truth = load_truth("VOCMetric", self.ann_file, self.dataset)
            self._category_ids = category_ids_of(self.dataset_meta, truth)
            self._truth = restrict(truth, None, [i for i in self._category_ids if i is not None])
            self._boxes = boxes_by_image(self._truth)
        return self._truth

    def check(self) -> None:
        """Reads the annotations; warns where they have no box, for then there are no figures.

        Raises:
            DataError: as ``truth``.
        """
        warn_of_no_box(self.truth, self.ann_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Matches the predictions of a batch with the truth.

        Args:
            data_batch: not used.
            data_samples: dicts with ``img_id`` and ``pred_instances``: ``bboxes`` (N, 4) xyxy in
                pixels of the original image, ``scores`` (N,), ``labels`` (N,).

        Raises:
            DataError: an image that the annotations lack; see ``truth`` too.
        """
        del data_batch
        known = set(self.truth.images)
        for sample in data_samples:
            image, found = sample["img_id"], sample["pred_instances"]
            if image not in known:
                raise DataError(f"the annotations have no image {shorten(image)}")
            boxes, scores = (
                found[key].detach().double().cpu().numpy() for key in ("bboxes", "scores")
            )
            labels = [self._category_ids[label] for label in found["labels"].tolist()]
            known_class = np.array([one is not None for one in labels], bool)
            categories = np.array([one for one in labels if one is not None], np.int64)
            truth = self._boxes.get(image, {})
            matched = match_image(
                *(boxes[known_class], scores[known_class], categories, truth, self.rule)
            )
            self.results.append((image, matched))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Returns both means by name."""
        # A sampler that pads may have sent an image twice.
        self.figures = summarize(self.truth, dict(results), self.rule)
        return dict(self.figures.summary)
