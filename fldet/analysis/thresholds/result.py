"""What an analysis of thresholds finds, as frozen dataclasses, and its file."""

import json
from dataclasses import dataclass
from pathlib import Path

from fldet.evaluation.thresholds import Thresholds
from fldet.files import write_atomically
from fldet.results import SCHEMA, Count, Share, read_stored, to_jsonable

FILE = "thresholds.json"


@dataclass(frozen=True)
class ClassThreshold:
    """The threshold of a class, and what comes of it; NaN where there are no objects."""

    score: Share  # from which detections count
    precision: float  # of them, in [0, 1]
    recall: float
    f1: float
    # the threshold that each fold alone would have, lowest and highest; of one set that of samples
    # of its images, 5th and 95th percentile
    low: float
    high: float
    objects: Count
    detections: Count
    remark: str = ""  # what could not be reached, in words


@dataclass(frozen=True)
class HeldOut:
    """F1 of each fold with thresholds chosen on the others: the mean over classes and folds."""

    per_class: float  # with a threshold of each class where they would choose that, in [0, 1]
    single: float  # with the best one for all classes


@dataclass(frozen=True)
class ThresholdAnalysis:
    """The thresholds of all classes."""

    classes: dict[str, ClassThreshold]  # by name
    chosen: str  # how, in words
    interval: str  # what ``low`` and ``high`` are of, in words
    source: str  # of detections and truth
    iou: Share  # from which a detection has found an object
    single: Share  # the best threshold for all classes
    held_out: HeldOut | None  # None without folds, or with another aim than F1
    # of each class rows of score, precision, recall and F1, falling scores; for the picture
    curves: dict[str, tuple[tuple[Share, Share, Share, Share], ...]]

    @property
    def thresholds(self) -> Thresholds:
        """What a detector takes."""
        scores = {name: one.score for name, one in self.classes.items()}
        return Thresholds(scores, self.chosen, self.source)


def save(analysis: ThresholdAnalysis, path: Path) -> Path:
    """Writes an analysis as JSON; ``read_thresholds`` reads it too."""
    content = {"schema": SCHEMA, "analysis": "thresholds", "scores": analysis.thresholds.scores}
    return write_atomically(path, json.dumps({**content, **to_jsonable(analysis)}) + "\n")


def load(path: Path) -> ThresholdAnalysis:
    """Returns what ``save`` wrote; another file is a ``DataError``."""
    analysis: ThresholdAnalysis = read_stored(
        path,
        ThresholdAnalysis,
        what="analysis of thresholds",
        hint="fldet analyze thresholds FOLDS_DIR writes one",
    )
    return analysis
