"""The detectors of all folds as one: what they find is merged by weighted box fusion."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fldet.checkpoints.paths import checkpoints_of
from fldet.errors import CheckpointError
from fldet.inference.detections import Detections
from fldet.inference.detector import Detector, Prepared
from fldet.ops.merge import best_across_classes

SAME_OBJECT = 0.55  # IoU from which boxes are merged; of Solovyev et al. (arXiv 1910.13302)
LOWEST_SCORE = 0.05  # of a box that is merged: what is sure together need not be for each


class Ensemble(Detector):
    """Finds objects with several detectors of the same classes and the same images.

    Boxes of one class that overlap are merged into their mean, weighted by score. The score is the
    mean score times the share of the detectors that have found the object: what only one of five
    has found gets a fifth of its score (Solovyev et al., weighted boxes fusion).

    Args:
        members: at least one.

    Raises:
        CheckpointError: they have other classes, or prepare images otherwise.
    """

    def __init__(self, members: Sequence[Detector]) -> None:
        first = members[0]
        super().__init__(first.model, first.pipeline, first.classes, first.device)
        for one in members:
            if one.classes != first.classes or one.pipeline != first.pipeline:
                raise CheckpointError(
                    "the detectors of the folds have other classes, or see images in other sizes",
                    expected="those of one cross-validation",
                    hint="name the work dir of one fold",
                )
        self.members = tuple(members)
        self._unproven, self._is_stored = first._unproven, first._is_stored
        self.is_agnostic = first.is_agnostic

    def faster(self) -> "Ensemble":
        """Returns this detector with optimized copies of its members' models."""
        other = copy.copy(self)
        other.members = tuple(one.faster() for one in self.members)
        return other

    def _detect_batch(self, batch: Sequence[Prepared], score_thr: float) -> list[Detections]:
        lowest = min(score_thr, LOWEST_SCORE)
        found = [one._detect_batch(batch, lowest) for one in self.members]
        return [self._merged(of_image, score_thr) for of_image in zip(*found, strict=True)]

    def _merged(self, found: Sequence[Detections], score_thr: float) -> Detections:
        """Returns what each of the detectors has found in an image as one."""
        boxes, scores, labels = merge_boxes(found)
        kept = np.flatnonzero(scores >= score_thr)
        if self.is_agnostic:
            kept = kept[best_across_classes(boxes[kept])]
        return self.named(boxes[kept], scores[kept], labels[kept])


def merge_boxes(found: Sequence[Detections], same_object: float = SAME_OBJECT) -> tuple[Any, ...]:
    """Returns boxes (N, 4), scores (N,) and labels (N,) of several detectors, best scores first.

    Args:
        found: what each detector has found in one image; boxes without area are left out.
        same_object: IoU above which two boxes of a class are merged.
    """
    from mmdet.models.utils.wbf import weighted_boxes_fusion

    kept = [(one.boxes[:, :2] < one.boxes[:, 2:]).all(1) for one in found]
    boxes, scores, labels = weighted_boxes_fusion(
        [one.boxes[rows] for one, rows in zip(found, kept, strict=True)],
        [one.scores[rows] for one, rows in zip(found, kept, strict=True)],
        [one.labels[rows] for one, rows in zip(found, kept, strict=True)],
        iou_thr=same_object,
        conf_type="box_and_model_avg",
    )
    return boxes.numpy().reshape(-1, 4), scores.numpy(), labels.numpy().astype(np.int64)


def load_ensemble(
    folder: Path,
    config: Any = None,
    device: str = "auto",
    precision: str | None = None,
    *,
    trust: bool = False,
    agnostic_nms: bool = False,
) -> Detector:
    """Returns the detectors of a cross-validation as one; arguments as of ``Detector.load``.

    Raises:
        CheckpointError: a fold has no checkpoint yet, or one that cannot be used.
    """
    paths = checkpoints_of(folder)
    members = [
        Detector.load(
            *(path, config, device), trust=trust, agnostic_nms=agnostic_nms, precision=precision
        )
        for path in paths
    ]
    detector = Ensemble(members)
    detector.source = folder
    return detector
