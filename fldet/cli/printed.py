"""What ``--json`` prints where it is not the result of one function; docs/schemas has all of it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tools/generate_schemas.py imports these
    from fldet.analysis.dataset.summary import DatasetSummary
    from fldet.analysis.errors.result import Kind
    from fldet.analysis.flops.report import FlopCount
    from fldet.analysis.labels.result import JudgedImage
    from fldet.analysis.log.summary import RunSummary
    from fldet.analysis.loss_cdf.curves import Procedure
    from fldet.analysis.speed_accuracy import SpeedAccuracy
    from fldet.analysis.thresholds.result import ClassThreshold, HeldOut
    from fldet.anchors.report import AnchorReport
    from fldet.config.names import Name
    from fldet.data.check import DataCheck
    from fldet.data.folds.files import Folds
    from fldet.runs.runner import Status


@dataclass(frozen=True)
class ReportPage:
    """``fldet report``."""

    page: Path
    size_mib: float
    images: int  # in the gallery
    gaps: Sequence[str]  # what is missing, a sentence each


@dataclass(frozen=True)
class Replayed:
    """``fldet train --replay``."""

    report: str


@dataclass(frozen=True)
class ListedPlugin:
    """An entry point of an installed package."""

    group: str
    name: str
    value: str
    package: str
    version: str
    problem: str  # empty if it works


@dataclass(frozen=True)
class PluginList:
    """``fldet plugins``."""

    plugins: Sequence[ListedPlugin]
    names: "Sequence[Name]"  # that configs can have, and commands


@dataclass(frozen=True)
class DataChecked:
    """``fldet data check``."""

    problems: int  # in all files
    files: "Sequence[DataCheck]"


@dataclass(frozen=True)
class DataDivided:
    """``fldet data split``."""

    folder: Path
    folds: "Folds"
    images: Sequence[int]  # of each fold
    boxes: Mapping[str, Sequence[int]]  # of each class and fold


@dataclass(frozen=True)
class PlannedRun:
    """A run that ``fldet paper run`` would do."""

    run: str
    rows: Sequence[str]  # of tables, that it is for
    commands: Sequence[Sequence[str]]  # the words behind fldet


@dataclass(frozen=True)
class PaperPlan:
    """``fldet paper run --dry-run``."""

    todo: Sequence[PlannedRun]
    minutes: float | None  # None if not known yet


@dataclass(frozen=True)
class PaperRuns:
    """``fldet paper run``."""

    runs: "Sequence[Status]"


@dataclass(frozen=True)
class AnchorsAnalyzed:
    """``fldet analyze anchors``."""

    report: "AnchorReport"
    files: Sequence[Path]


@dataclass(frozen=True)
class DatasetAnalyzed:
    """``fldet analyze dataset``."""

    summary: "DatasetSummary"
    pictures: Sequence[Path]


@dataclass(frozen=True)
class WorstImage:
    """An image with costly mistakes."""

    image_id: Hashable
    file_name: str | None
    cost: float  # AP50 in [0, 1]


@dataclass(frozen=True)
class ErrorsAnalyzed:
    """``fldet analyze errors``; curves, matrix and boxes are in errors.json."""

    ap50: float
    ap50_per_area: Mapping[str, float]
    images: int
    objects: int
    detections: int
    score_thr: float
    kinds: "Mapping[str, Kind]"
    expected_calibration_error: float
    worst_images: Sequence[WorstImage]
    files: Sequence[Path]


@dataclass(frozen=True)
class FlopsAnalyzed:
    """``fldet analyze flops``."""

    count: "FlopCount"
    pictures: Sequence[Path]


@dataclass(frozen=True)
class LabelsAnalyzed:
    """``fldet analyze labels``; all findings are in labels.json."""

    source: str
    annotations: int
    findings: int
    likely: Mapping[str, int]  # of each kind, those that are likely
    worst_images: "Sequence[JudgedImage]"
    files: Sequence[Path]


@dataclass(frozen=True)
class LogAnalyzed:
    """``fldet analyze log``."""

    smooth: int
    runs: "Sequence[RunSummary]"
    pictures: Sequence[Path]


@dataclass(frozen=True)
class LossCdfAnalyzed:
    """``fldet analyze loss-cdf``."""

    shares: Sequence[Mapping[str, float]]  # of the hardest examples, a row for each gamma
    procedure: "Procedure"
    files: Sequence[Path]


@dataclass(frozen=True)
class LossCurvesAnalyzed:
    """``fldet analyze loss-curves``."""

    loss_at_p_t_by_gamma: Mapping[float, Mapping[float, float]]
    pictures: Sequence[Path]


@dataclass(frozen=True)
class SpeedAccuracyAnalyzed:
    """``fldet analyze speed-accuracy``."""

    figure: "SpeedAccuracy"
    pictures: Sequence[Path]


@dataclass(frozen=True)
class ThresholdsAnalyzed:
    """``fldet analyze thresholds``; curves are in thresholds.json."""

    classes: "Mapping[str, ClassThreshold]"
    chosen: str
    interval: str
    source: str
    iou: float
    single: float
    held_out: "HeldOut | None"
    files: Sequence[Path]
