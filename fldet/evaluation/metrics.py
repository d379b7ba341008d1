"""The COCO and the VOC figures as metrics of MMEngine's loops."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from fldet.data.annotations import missing_classes
from fldet.errors import DataError, shorten
from fldet.evaluation.coco import Engine, evaluate_coco
from fldet.evaluation.detections import (
    Detection,
    DetectionTable,
    ImageDetections,
    image_detections,
    save_detections,
)
from fldet.evaluation.figures import CocoFigures, VocFigures
from fldet.evaluation.ground_truth import GroundTruth, load_truth, restrict
from fldet.evaluation.voc import Floats, Marks, VocRule, boxes_by_image, match_image, summarize
from fldet.registry import METRICS

log = logging.getLogger("fldet")


class BoxMetric(BaseMetric):
    """Figures of boxes over the images that a loop has seen, no others.

    So a part of a data set gives the figures of that part. Labels become category ids by class
    name, whatever the order and the gaps of the ids in the file. With several processes the
    results are in the first one's object.

    Args:
        ann_file: COCO annotation file; fldet fills in that of the data loader.
        dataset: in place of ``ann_file``, ``type`` and keywords of a data set in another format;
            fldet fills in that of the data loader.
        collect_device: where results of several processes meet, ``cpu`` or ``gpu``.
        prefix: of the names of the figures. NaN (no ground truth of that kind) never counts as a
            best value, with ``rule='greater'``.

    Attributes:
        figures: result of the last evaluation, None before it.
    """

    figures: CocoFigures | VocFigures | None = None

    def __init__(
        self,
        ann_file: str | None,
        dataset: Mapping[str, Any] | None,
        collect_device: str,
        prefix: str | None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.dataset = dataset

    @cached_property
    def truth(self) -> GroundTruth:
        """The annotations, read once."""
        return load_truth(type(self).__name__, self.ann_file, self.dataset)

    @cached_property
    def category_ids(self) -> list[int | None]:
        """Category id by label, None for a class that the annotations lack."""
        return _category_ids(self.dataset_meta, self.truth)

    def check(self) -> None:
        """Reads the annotations; warns where they have no box, for then there are no figures."""
        if not self.truth.annotations:
            log.warning(
                "%s have no box: there will be detections, but no figures",
                self.ann_file or "the annotations",
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps what the figures need of the predictions of a batch.

        Samples have ``img_id`` and ``pred_instances``: ``bboxes`` (N, 4) xyxy in pixels of the
        original image, ``scores`` (N,), ``labels`` (N,).
        """
        del data_batch
        for sample in data_samples:
            image = sample["img_id"]
            self.results.append((image, self.result_of(image, sample["pred_instances"])))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Returns the figures by name."""
        # A sampler that pads may have sent an image twice.
        self.figures = figures = self.evaluate_images(dict(results))
        return dict(figures.summary)

    def result_of(self, image: Hashable, instances: Mapping[str, Any]) -> Any:
        """Returns what is kept, and sent between processes, of the predictions of one image."""
        raise NotImplementedError

    def evaluate_images(self, by_image: dict[Hashable, Any]) -> CocoFigures | VocFigures:
        """Returns the figures of all images, from what ``result_of`` returned for each."""
        raise NotImplementedError


@METRICS.register_module()
class CocoMetric(BoxMetric):
    """COCO box figures of a loop over a data set.

    Args:
        engine: see ``evaluate_coco``.
        outfile: where to write the detections, in the format of the COCO server; None does not.
        prefix: of the names of the figures: ``coco/AP``. For the others see ``BoxMetric``.

    Attributes:
        detections: what was evaluated last, in the COCO results format.
        image_ids: of the images that were evaluated last.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str | None = None,
        engine: Engine = "auto",
        outfile: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        dataset: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(ann_file, dataset, collect_device, prefix)
        self.engine = engine
        self.outfile = outfile
        self.detections: Sequence[Detection] = []
        self.image_ids: tuple[Any, ...] = ()

    def result_of(self, image: Hashable, instances: Mapping[str, Any]) -> ImageDetections:
        """Returns the predictions of one image as arrays, which cost little to send."""
        del image
        return image_detections(instances, self.category_ids)

    def evaluate_images(self, by_image: dict[Hashable, Any]) -> CocoFigures:
        """Returns the twelve figures; writes ``outfile`` if there is one."""
        self.image_ids = tuple(by_image)
        self.detections = DetectionTable.of_images(by_image, self.category_ids)
        if self.outfile is not None:
            save_detections(Path(self.outfile), self.detections)
        return evaluate_coco(
            self.truth,
            self.detections,
            image_ids=by_image,
            category_ids=[one for one in self.category_ids if one is not None],
            engine=self.engine,
        )


@METRICS.register_module()
class VOCMetric(BoxMetric):
    """Pascal VOC figures of a loop over a data set; see ``fldet.evaluation.voc``.

    Each image is matched as it comes, so that only scores and marks are kept and sent between
    processes. Crowd regions of a COCO file count as difficult.

    Args:
        iou_thr: lowest IoU of a right detection with its box.
        plus_one: whether a box is x2 - x1 + 1 wide, as in VOC's development kit.
        prefix: of the names of the figures: ``voc/mAP``, ``voc/mAP_11``. For the others see
            ``BoxMetric``.
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
        super().__init__(ann_file, dataset, collect_device, prefix)
        self.rule = VocRule(iou_thr, plus_one)

    @cached_property
    def truth(self) -> GroundTruth:
        """The annotations of the classes of the data set, read once."""
        truth = load_truth("VOCMetric", self.ann_file, self.dataset)
        chosen = _category_ids(self.dataset_meta, truth)
        return restrict(truth, None, [one for one in chosen if one is not None])

    @cached_property
    def _boxes(self) -> dict[Hashable, dict[int, tuple[Floats, Marks]]]:
        return boxes_by_image(self.truth)

    def result_of(self, image: Hashable, instances: Mapping[str, Any]) -> Any:
        """Returns scores and marks of the predictions of one image."""
        if image not in self._boxes:
            raise DataError(f"the annotations have no image {shorten(image)}")
        boxes, scores = (
            instances[key].detach().double().cpu().numpy() for key in ("bboxes", "scores")
        )
        labels = [self.category_ids[label] for label in instances["labels"].tolist()]
        known_class = np.array([one is not None for one in labels], bool)
        categories = np.array([one for one in labels if one is not None], np.int64)
        return match_image(
            boxes[known_class], scores[known_class], categories, self._boxes[image], self.rule
        )

    def evaluate_images(self, by_image: dict[Hashable, Any]) -> VocFigures:
        """Returns the figures by both rules of averaging."""
        return summarize(self.truth, by_image, self.rule)


def _category_ids(dataset_meta: Mapping[str, Any] | None, truth: GroundTruth) -> list[int | None]:
    """Returns the category id of each label of a data set, None for one that the truth lacks."""
    classes = (dataset_meta or {}).get("classes")
    if not classes:
        raise DataError("the data set has no class names: metainfo has no 'classes'")
    return map_classes(classes, truth.categories)


def map_classes(classes: Sequence[str], categories: Mapping[int, str]) -> list[int | None]:
    """Returns the category id of each class by name, None for one that the annotations lack."""
    id_by_name = {name: key for key, name in categories.items()}
    missing_classes(classes, id_by_name, "the annotation file")
    return [id_by_name.get(name) for name in classes]
