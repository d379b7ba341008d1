"""``fldet analyze thresholds`` as a function."""

from pathlib import Path

from fldet.analysis.thresholds.compute import Aim, find_thresholds
from fldet.analysis.thresholds.pictures import plot_thresholds
from fldet.analysis.thresholds.result import FILE, ThresholdAnalysis, save
from fldet.errors import UsageError
from fldet.evaluation.detected import read_detected
from fldet.results import ANALYSES, Analysis


def analyze_thresholds(
    folder: Path | None = None,
    *,
    detections: Path | None = None,
    annotations: Path | None = None,
    at: str = "f1",
    precision: float | None = None,
    recall: float | None = None,
    iou: float = 0.5,
    out_dir: Path = ANALYSES / "thresholds",
) -> Analysis[ThresholdAnalysis]:
    """Finds the score of each class from which detections are to count, and draws it.

    Args:
        folder: of ``fldet cross-validate``.
        detections: in the COCO results format, and
        annotations: their truth in COCO's format; both in the place of a folder.
        at: ``f1``, unless one of the next two is given.
        precision: that each class is to reach, in (0, 1], with as many objects as possible.
        recall: that each class is to reach, in (0, 1], with as few mistakes as possible.
        iou: from which a detection has found an object, in (0, 1].
        out_dir: for ``thresholds.json`` and the picture.

    Raises:
        UsageError: two aims, a figure out of range, neither a folder nor two files.
        DataError: a file is missing or malformed, or holds no object or no detection.
    """
    aims = [Aim(name, value) for name, value in _figures(precision, recall) if value is not None]
    if at != "f1" or len(aims) > 1:
        raise UsageError(
            "one aim: --at f1, --precision or --recall",
            expected="f1 is the only word that --at takes" if at != "f1" else "",
        )
    for name, value in (*_figures(precision, recall), ("iou", iou)):
        if value is not None and not 0 < value <= 1:
            raise UsageError(f"--{name} {value:g}", expected="a number above 0, at most 1")
    detected = read_detected(folder, detections, annotations)
    analysis = find_thresholds(detected, aims[0] if aims else Aim(), iou=iou)
    saved = save(analysis, out_dir / FILE)
    return Analysis(analysis, [saved, *plot_thresholds(analysis, out_dir)])


def _figures(
    precision: float | None, recall: float | None
) -> tuple[tuple[str, float | None], tuple[str, float | None]]:
    return ("precision", precision), ("recall", recall)
