"""``fldet analyze errors`` as functions."""

from pathlib import Path

from mmengine.config import Config

from fldet.analysis.errors.collect import collect_detections
from fldet.analysis.errors.compute import find_errors
from fldet.analysis.errors.pictures import plot_errors
from fldet.analysis.errors.result import ErrorAnalysis, load, save
from fldet.analysis.errors.worst import draw_worst
from fldet.results import ANALYSES, Analysis

_FOLDER = ANALYSES / "errors"


def analyze_errors(
    source: Config | Path,
    detections_file: Path,
    *,
    split: str = "val",
    images: Path | None = None,
    out_dir: Path = _FOLDER,
    worst: int = 10,
    score_thr: float = 0.3,
) -> Analysis[ErrorAnalysis]:
    """Finds and draws which mistakes cost how much AP, and writes ``errors.json``.

    Args:
        source: config, or annotation file in COCO format.
        detections_file: in the COCO results format, as ``fldet test --out`` writes it.
        split: ``train``, ``val`` or ``test``; of a config.
        images: their folder; needed to draw images of an annotation file.
        out_dir: where to draw.
        worst: so many images are drawn that cost most.
        score_thr: lowest score in confusion matrix and pictures.

    Raises:
        DataError: a file is malformed, or a detection names an id that the truth does not have.
        UsageError: another split, or one that is no single data set.
    """
    tested = collect_detections(source, detections_file, split=split, image_dir=images)
    analysis = find_errors(tested, score_thr=score_thr, num_worst=worst)
    saved = save(analysis, out_dir / "errors.json")
    return Analysis(analysis, [saved, *_draw(analysis, images, out_dir)])


def redraw_errors(
    path: Path, *, images: Path | None = None, out_dir: Path = _FOLDER
) -> Analysis[ErrorAnalysis]:
    """Draws an earlier analysis again, from its ``errors.json`` alone.

    Args:
        path: of the file.
        images: folder of the images, where it is another one now.
        out_dir: where to draw.

    Raises:
        DataError: no such file, or another one.
    """
    analysis = load(path)
    return Analysis(analysis, _draw(analysis, images, out_dir))


def _draw(analysis: ErrorAnalysis, images: Path | None, out_dir: Path) -> list[Path]:
    files = plot_errors(analysis, out_dir)
    image_dir = images or (Path(analysis.image_dir) if analysis.image_dir else None)
    return [*files, *(draw_worst(analysis, image_dir, out_dir) if image_dir else [])]
