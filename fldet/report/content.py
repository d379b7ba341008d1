"""What is on the page of a run, as data: figures, curves, and a gallery of images with boxes."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fldet.analysis.errors.kinds import KINDS
from fldet.analysis.errors.result import DrawnBox, DrawnImage, ErrorAnalysis
from fldet.analysis.log import TrainingLog
from fldet.analysis.loss_cdf.curves import LossCdf
from fldet.data.annotations import image_path
from fldet.errors import DataError
from fldet.pictures.boxes import Image, read_image

SIDE = 480  # longer side of an image in the page, in pixels
MAX_BYTES = 40_000  # of the JPEG of an image: 500 of them, as base64, stay below 30 MB
LOWEST_SCORE = 0.05  # of the detections in the gallery
STATES = ("correct", *KINDS, "ignored")  # a detection has one; missed is for objects

_QUALITIES = (85, 75, 60, 45, 30, 15)


@dataclass(frozen=True)
class Picture:
    """An image of the gallery.

    Attributes:
        name: of the file.
        jpeg: the image, scaled down.
        size: (width, height) in pixels of the file, upright; those of the boxes.
        boxes: objects and detections, and what the image costs.
        chosen: ``worst`` or ``random``.
    """

    name: str
    jpeg: bytes
    size: tuple[int, int]
    boxes: DrawnImage
    chosen: str


@dataclass(frozen=True)
class Report:
    """All that the page shows; what is None or empty is left out.

    Attributes:
        title: of the page.
        facts: of the run, by name.
        compared_with: the config that ``changes`` are relative to.
        changes: key, value there and value here, as text.
        figures: ``summary`` and ``per_class`` of each metric, as ``fldet test`` wrote them: in
            [0, 1], None for NaN.
        log: of the training.
        errors: of the detections.
        loss_cdf: of the examples.
        pictures: of the gallery.
        gaps: a sentence for everything that is missing.
    """

    title: str
    facts: Mapping[str, str]
    compared_with: str
    changes: tuple[tuple[str, str, str], ...]
    figures: tuple[Mapping[str, Any], ...]
    log: TrainingLog | None
    errors: ErrorAnalysis | None
    loss_cdf: LossCdf | None
    pictures: tuple[Picture, ...]
    gaps: tuple[str, ...]


def split_of(num_images: int) -> tuple[int, int]:
    """Returns how many images of a gallery are the worst, and how many drawn at random."""
    return num_images - num_images // 2, num_images // 2


def take_pictures(analysis: ErrorAnalysis) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Returns the images that an analysis kept, and a sentence for each that cannot be read.

    Args:
        analysis: with ``image_dir``; its worst images come first.
    """
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
        pictures.append(Picture(one.file_name, as_jpeg(image), (width, height), one, reason))
    return tuple(pictures), tuple(gaps)


def as_jpeg(image: Image) -> bytes:
    """Returns an image of at most ``SIDE`` pixels a side, in at most about ``MAX_BYTES`` bytes."""
    factor = min(1.0, SIDE / max(image.shape[:2]))
    if factor < 1:
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    data = b""
    for quality in _QUALITIES:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= MAX_BYTES:
            break
    return data


def as_data_uri(picture: Picture) -> str:
    """Returns the image as a ``data:`` address."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode('ascii')}"


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
