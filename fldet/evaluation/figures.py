"""Figures of a test: COCO's and Pascal VOC's."""

import dataclasses

# The twelve figures of the COCO evaluation, in the order of its own summary.
COCO_FIGURES = (
    *("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"),
    *("AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L"),
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures of one set of detections.

    Attributes:
        summary: figures by name, in [0, 1]; NaN where the ground truth has no box of that kind.
            The first one is what the detections are judged by.
        per_class: AP by class name, in [0, 1]; NaN for classes without a box.
        num_images: images evaluated.
        num_detections: detections evaluated.
        engine: the implementation that computed them.
    """

    summary: dict[str, float]
    per_class: dict[str, float]
    num_images: int
    num_detections: int
    engine: str

    @property
    def main(self) -> float:
        """The first figure of the summary: COCO's AP, Pascal VOC's mAP."""
        return next(iter(self.summary.values()))


@dataclasses.dataclass(frozen=True)
class CocoFigures(Figures):
    """COCO box figures: ``summary`` has the names in ``COCO_FIGURES``.

    ``per_class`` is AP over IoU .50:.95. At most 100 detections of an image and class count.
    """


@dataclasses.dataclass(frozen=True)
class VocFigures(Figures):
    """Pascal VOC figures: ``summary`` has ``mAP`` and ``mAP_11``.

    ``per_class`` is the area under the whole curve (VOC 2010 and later), and ``mAP`` its mean over
    classes with a box; ``mAP_11`` is that of ``per_class_11``.

    Attributes:
        per_class_11: mean precision at eleven recalls (VOC 2007), by class name.
    """

    per_class_11: dict[str, float]
