"""The COCO figures as a metric of MMEngine's loops."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric

from fldet.data.annotations import missing_classes
from fldet.errors import DataError
from fldet.evaluation.coco import Engine, evaluate_coco
from fldet.evaluation.detections import as_detections, save_detections
from fldet.evaluation.figures import CocoFigures
from fldet.evaluation.ground_truth import GroundTruth, load_truth
from fldet.registry import METRICS

log = logging.getLogger("fldet")


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO box figures of a loop over a data set.

    Labels become category ids by class name, whatever the order and the gaps of the ids in the
    file. The images that were seen are evaluated, no others, so a part of a data set gives the
    figures of that part. With several processes the results are in the first one's object.

    Args:
        ann_file: COCO annotation file; fldet fills in that of the data loader.
        engine: see ``evaluate_coco``.
        dataset: in place of ``ann_file``, ``type`` and keywords of a data set in another format;
            fldet fills in that of the data loader.
        outfile: where to write the detections, in the format of the COCO server; None does not.
        collect_device: where results of several processes meet, ``cpu`` or ``gpu``.
        prefix: of the names of the figures: ``coco/AP``. NaN (no ground truth of that kind)
            never counts as a best value, with ``rule='greater'``.

    Attributes:
        figures: result of the last evaluation, None before it.
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
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file = ann_file
        self.dataset = dataset
        self.engine = engine
        self.outfile = outfile
        self.figures: CocoFigures | None = None
        self.detections: list[dict[str, Any]] = []
        self.image_ids: tuple[Any, ...] = ()
        self._truth: GroundTruth | None = None
        self._category_ids: list[int | None] | None = None

    @property
    def truth(self) -> GroundTruth:
        """The annotations, read once.

        Raises:
            DataError: there is none, or it is malformed.
        """
        if self._truth is None:
            self._truth = load_truth("CocoMetric", self.ann_file, self.dataset)
        return self._truth

    def check(self) -> None:
        """Reads the annotations; warns where they have no box, for then there are no figures.

        Raises:
            DataError: as ``truth``.
        """
        warn_of_no_box(self.truth, self.ann_file)

    @property
    def category_ids(self) -> list[int | None]:
        """Category id by label, None for a class that the annotations lack.

        Raises:
            DataError: the data set has no class names, or none that is in the file.
        """
        if self._category_ids is None:
            self._category_ids = category_ids_of(self.dataset_meta, self.truth)
        return self._category_ids

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps the predictions of a batch.

        Args:
            data_batch: not used.
            data_samples: dicts with ``img_id`` and ``pred_instances``: ``bboxes`` (N, 4) xyxy in
                pixels of the original image, ``scores`` (N,), ``labels`` (N,).

        Raises:
            DataError: a label without a class, an image that the file lacks; see ``truth`` and
                ``category_ids`` too.
        """
        del data_batch
        for sample in data_samples:
            found = as_detections(sample["img_id"], sample["pred_instances"], self.category_ids)
            self.results.append((sample["img_id"], found))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Returns the twelve figures by name; writes ``outfile`` if there is one."""
        by_image = dict(results)  # a sampler that pads may have sent an image twice
        self.image_ids = tuple(by_image)
        self.detections = [one for found in by_image.values() for one in found]
        if self.outfile is not None:
            save_detections(Path(self.outfile), self.detections)
        self.figures = evaluate_coco(
            self.truth,
            self.detections,
            image_ids=by_image,
            category_ids=[one for one in self.category_ids if one is not None],
            engine=self.engine,
        )
        return dict(self.figures.summary)


def warn_of_no_box(truth: GroundTruth, ann_file: str | None) -> None:
    """Logs a warning where there is nothing to compare detections with."""
    if not truth.annotations:
        log.warning(
            "%s have no box: there will be detections, but no figures",
            ann_file or "the annotations",
        )


def category_ids_of(dataset_meta: Mapping[str, Any] | None, truth: GroundTruth) -> list[int | None]:
    """Returns the category id of each label of a data set, None for one that the truth lacks.

    Raises:
        DataError: the data set has no class names, or none that the truth has.
    """
    classes = (dataset_meta or {}).get("classes")
    if not classes:
        raise DataError("the data set has no class names: metainfo has no 'classes'")
    return map_classes(classes, truth.categories)


def map_classes(classes: Sequence[str], categories: Mapping[int, str]) -> list[int | None]:
    """Returns the category id of each class, found by name, None where there is none.

    An annotation file may list only the categories that it has boxes of.

    Raises:
        DataError: as ``missing_classes``.
    """
    id_by_name = {name: key for key, name in categories.items()}
    missing_classes(classes, id_by_name, "the annotation file")
    return [id_by_name.get(name) for name in classes]
