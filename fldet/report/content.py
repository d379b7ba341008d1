"""What is on the page of a run, as data: figures, curves, and a gallery of images with boxes."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.analysis.errors.collect import TestedData
from fldet.analysis.errors.compute import find_errors
from fldet.analysis.errors.kinds import KINDS
from fldet.analysis.errors.result import DrawnBox, DrawnImage, ErrorAnalysis
from fldet.analysis.log.read import TrainingLog, read_log
from fldet.analysis.log.summary import summarize_log
from fldet.analysis.loss_cdf.curves import LossCdf, read_curves
from fldet.analysis.thresholds.result import FILE as THRESHOLDS
from fldet.analysis.thresholds.result import ThresholdAnalysis, load
from fldet.data.annotations import image_path
from fldet.errors import DataError
from fldet.evaluation.figures import Figures
from fldet.pictures.boxes import read_image
from fldet.pictures.pages import as_jpeg, data_uri
from fldet.report.record import RunRecord
from fldet.text import clock

SIDE = 480  # longer side of an image in the page, in pixels
MAX_BYTES = 40_000  # of the JPEG of an image: 500 of them, as base64, stay below 30 MB
LOWEST_SCORE = 0.05  # of the detections in the gallery
STATES = ("correct", *KINDS, "ignored")  # a detection has one; missed is for objects


@dataclass(frozen=True)
class Picture:
    """An image of the gallery."""

    name: str  # of the file
    jpeg: bytes  # the image, scaled down
    size: tuple[int, int]  # (width, height) in pixels of the file, upright; those of the boxes
    boxes: DrawnImage  # objects and detections, and what the image costs
    chosen: str  # ``worst`` or ``random``

    @property
    def data_uri(self) -> str:
        """The image as a ``data:`` address."""
        return data_uri(self.jpeg)


@dataclass(frozen=True)
class Report:
    """All that the page shows; what is None or empty is left out."""

    title: str  # of the page
    facts: Mapping[str, str]  # of the run, by name
    compared_with: str  # the config that ``changes`` are relative to
    changes: tuple[tuple[str, str, str], ...]  # key, value there and value here, as text
    figures: tuple[Figures, ...]  # of each metric, as ``fldet test`` wrote them
    log: TrainingLog | None  # of the training
    errors: ErrorAnalysis | None  # of the detections
    loss_cdf: LossCdf | None  # of the examples
    pictures: tuple[Picture, ...]  # of the gallery
    gaps: tuple[str, ...]  # a sentence for everything that is missing
    thresholds: ThresholdAnalysis | None = None  # of each class


def split_of(num_images: int) -> tuple[int, int]:
    """Returns how many images of a gallery are the worst, and how many drawn at random."""
    return num_images - num_images // 2, num_images // 2


def take_pictures(analysis: ErrorAnalysis) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Returns the images that an analysis kept, the worst first, and what could not be read."""
    pictures, gaps = [], []
    chosen = [(one, "worst") for one in analysis.worst]
    chosen += [(one, "random") for one in analysis.others]
    for one, reason in chosen:
        try:
            if one.file_name is None or analysis.image_dir is None:
                raise DataError(f"image {one.image_id!r} has no file")
            image = read_image(image_path(Path(analysis.image_dir), one.file_name, "the truth"))
        except DataError as error:
            gaps.append(f"Not in the gallery: {error.message}")
            continue
        height, width = image.shape[:2]
        jpeg = as_jpeg(image, SIDE, MAX_BYTES)
        pictures.append(Picture(one.file_name, jpeg, (width, height), one, reason))
    return tuple(pictures), tuple(gaps)


def gallery_data(report: Report) -> dict[str, Any]:
    """Returns what the script of the page needs, in JSON's types.

    ``classes`` and ``states`` are names. An image has ``name``, ``size``, ``cost`` (points of
    AP50), ``set``, ``objects`` as rows x, y, width, height, label, 1 for a crowd region, and
    ``found`` as rows x, y, width, height, label, place in ``states``, score, place of the object
    that was found or is pointed to or -1.
    """
    return {
        "classes": list(report.errors.classes) if report.errors else [],
        "states": list(STATES),
        "images": [
            {
                "name": one.name,
                "size": one.size,
                "cost": round(100 * one.boxes.cost, 3),
                "set": one.chosen,
                "objects": [
                    [*_rounded(box), box.label, int(box.state == "crowd")]
                    for box in one.boxes.objects
                ],
                "found": [_found(box) for box in one.boxes.detections],
            }
            for one in report.pictures
        ],
    }


def _found(box: DrawnBox) -> list[float]:
    # Rounded down: a score must not reach a threshold that it does not.
    score = math.floor(1000 * (box.score or 0)) / 1000
    target = -1 if box.target is None else box.target
    return [*_rounded(box), box.label, STATES.index(box.state), score, target]


def _rounded(box: DrawnBox) -> list[float]:
    return [round(value, 1) for value in box.box_xywh]


def report_of(
    record: RunRecord,
    work_dir: Path,
    *,
    num_images: int = 60,
    score_thr: float = 0.3,
    thresholds: Path | None = None,
) -> Report:
    """Returns what is on the page of a run, with so many images in the gallery.

    ``score_thr`` is the lowest score of confusions, and the gallery's first; ``thresholds`` the
    file of those of each class, by default ``thresholds.json`` in the folder or its ``thresholds``.

    Raises:
        DataError: the folder has neither a training nor a test, or ``thresholds`` cannot be read.
    """
    gaps = list(record.gaps)
    log = _training(work_dir, gaps)
    if log is None and record.result is None:
        raise DataError(
            f"nothing to report in {work_dir}: neither the log of a training nor a test",
            expected="the folder of fldet train, or that of fldet test",
            hint=" ".join(gaps),
        )
    errors = _errors(record.tested, num_images, score_thr) if record.tested else None
    loss_cdf = find_loss_cdf(record.config, work_dir, gaps)
    if loss_cdf is None:
        gaps.append(
            "No loss of easy and hard examples (heads with anchors and sigmoids have one): "
            "fldet analyze loss-cdf "
            f"{work_dir / record.config}.py {work_dir} --out-dir {work_dir}"
        )
    pictures, unread = take_pictures(errors) if errors and num_images else ((), ())
    result = record.result
    return Report(
        title=record.name,
        facts=facts_of(record, log),
        compared_with=record.compared_with,
        changes=tuple(
            (one.key, _text(one.a, one.in_a), _text(one.b, one.in_b)) for one in record.changes
        ),
        figures=(result.figures, *result.others.values()) if result else (),
        log=log,
        errors=errors,
        loss_cdf=loss_cdf,
        thresholds=load(thresholds) if thresholds else _thresholds(work_dir, gaps),
        pictures=pictures,
        gaps=(*gaps, *unread),
    )


def _text(value: Any, there: bool) -> str:
    return repr(value) if there else "-"


def _training(work_dir: Path, gaps: list[str]) -> TrainingLog | None:
    try:
        return read_log(work_dir)
    except DataError as error:
        gaps.append(f"No curves of the training: {error.message}")
        return None


def _errors(tested: TestedData, num_images: int, score_thr: float) -> ErrorAnalysis:
    """Returns what is wrong with the detections, with the images of the gallery."""
    num_worst, num_random = split_of(min(num_images, len(tested.truth.images)))
    return find_errors(
        tested,
        score_thr=score_thr,
        num_worst=num_worst,
        num_random=num_random,
        lowest_score=LOWEST_SCORE,
    )


def find_loss_cdf(config: str, work_dir: Path, gaps: list[str]) -> LossCdf | None:
    """Returns the newest curves of this run's config and checkpoints: in its folder or beside.

    ``gaps`` takes a sentence for each file that cannot be read.
    """
    places = (work_dir, work_dir / "analysis", work_dir.resolve().parent / "analysis")
    files = [file for place in places for file in place.glob("loss_cdf_*.json")]
    for file in sorted(files, key=lambda one: one.lstat().st_mtime, reverse=True):
        try:
            curves = read_curves(file)
        except DataError as error:
            gaps.append(f"Not read: {error.message}.")
            continue
        weights = work_dir / curves.procedure.checkpoint
        if Path(curves.procedure.config).stem == config and os.path.isfile(weights):
            return curves
    return None


def _thresholds(work_dir: Path, gaps: list[str]) -> ThresholdAnalysis | None:
    for folder in (work_dir, work_dir / "thresholds"):
        if (folder / THRESHOLDS).is_file():
            try:
                return load(folder / THRESHOLDS)
            except DataError as error:
                gaps.append(f"Not read: {error.message}.")
    return None


def facts_of(record: RunRecord, log: TrainingLog | None) -> dict[str, str]:
    """Returns what is worth knowing of a run, by name."""
    facts = {"config": record.config} if record.config else {}
    if log:
        summary = summarize_log(log)
        facts["iterations"] = f"{summary.iterations:,}"
        if summary.starts > 1:
            facts["starts"] = str(summary.starts)
        if (time := clock(summary.seconds)) != "-":
            facts["time of training"] = time
    facts |= record.environment
    if record.result:
        facts["tested checkpoint"] = record.result.checkpoint.name
        facts["tested with"] = f"fldet {record.version}, {record.result.precision}"
        facts["time of the test"] = f"{record.result.seconds:.1f} s"
    if record.tested:
        truth = record.tested.truth
        facts["data of the test"] = str(record.tested.annotation_file)
        facts["images"] = f"{len(truth.images):,}"
        facts["objects"] = f"{sum(not one['iscrowd'] for one in truth.annotations):,}"
        facts["classes"] = f"{len(truth.categories):,}"
    return facts
