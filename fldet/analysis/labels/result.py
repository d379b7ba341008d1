"""What an analysis of labels finds, as frozen dataclasses, and its file."""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from fldet.files import write_atomically
from fldet.results import SCHEMA, Count, Share, read_stored, to_jsonable

FILE = "labels.json"
KINDS = ("missing", "spurious", "moved", "class", "doubled")
IN_WORDS = {
    "missing": "something is detected where no box is",
    "spurious": "nothing is detected where a box is",
    "moved": "the box detected lies elsewhere, or has another size",
    "class": "another class is detected there",
    "doubled": "two boxes of one object",
}


@dataclass(frozen=True)
class Finding:
    """An annotation that is probably wrong, or lacks."""

    kind: str  # of ``KINDS``
    score: Share  # how likely it is wrong; comparable between kinds
    image_id: Hashable
    annotation_ids: tuple[Hashable, ...]  # two if doubled, none if missing
    box_xywh: tuple[float, ...] | None  # annotated, in pixels; None if missing
    label: str  # the class annotated; "" if missing
    # what is there instead: the box detected, or the other one if doubled; None if spurious
    other_xywh: tuple[float, ...] | None
    other_label: str  # its class; "" if spurious
    other_score: float  # the score of the detection; NaN without one


@dataclass(frozen=True)
class JudgedImage:
    """An image with the findings in it."""

    image_id: Hashable
    file: str  # path of the file; "" if unknown
    score: Share  # how likely at least one of its annotations is wrong or lacks
    findings: Count


@dataclass(frozen=True)
class LabelAnalysis:
    """All findings."""

    source: str  # of detections and annotations
    annotations: Count  # boxes, crowd regions not counted
    findings: tuple[Finding, ...]  # the likeliest first
    images: tuple[JudgedImage, ...]  # all of them, the likeliest first


def save(analysis: LabelAnalysis, path: Path) -> Path:
    """Writes an analysis as JSON; ``load`` gives the same back."""
    content = {"schema": SCHEMA, "analysis": "labels", **to_jsonable(analysis)}
    return write_atomically(path, json.dumps(content) + "\n")


def load(path: Path) -> LabelAnalysis:
    """Returns what ``save`` wrote; another file is a ``DataError``."""
    analysis: LabelAnalysis = read_stored(
        path,
        LabelAnalysis,
        what="analysis of labels",
        hint="fldet analyze labels FOLDS_DIR writes one",
    )
    return analysis
