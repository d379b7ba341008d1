"""The worst images as pictures: truth beside predictions, each box in the colour of its mistake."""

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fldet.analysis.errors.pictures import COLORS
from fldet.analysis.errors.result import DrawnBox, DrawnImage, ErrorAnalysis
from fldet.data.annotations import image_path
from fldet.errors import DataError
from fldet.files import write_atomically
from fldet.pictures.boxes import (
    Image,
    add_title,
    draw_tagged_boxes,
    enlarge,
    read_image,
    side_by_side,
    xyxy,
)
from fldet.pictures.colors import PALETTE
from fldet.text import middle_cut

log = logging.getLogger("fldet")

# On the tags: colour alone would not do.
_SHORT = {
    "classification": " cls",
    "localisation": " loc",
    "both": " both",
    "duplicate": " dup",
    "background": " bkg",
    "missed": " missed",
}
_PANE = 800  # longer side of truth and of predictions at least, in pixels
_LINE = 28  # height of a line of the legend, in pixels
_QUALITY = 92  # of JPEG, at which letters stay clean
_MOST_BOXES = 1000  # drawn on an image; nobody sees more
_NOTES = (
    "In the truth, (.20): found, but only with this score. Hatched: crowd, or found on a crowd.",
    "Cost: the AP50 gain of each kind of mistake, shared out among its mistakes by their scores.",
)


def draw_worst(analysis: ErrorAnalysis, image_dir: Path, folder: Path) -> list[Path]:
    """Draws the worst images as ``worst_01.jpg`` and so on; returns the paths.

    Images that cannot be read are passed over with a warning.
    """
    drawn = []
    for rank, worst in enumerate(analysis.worst, start=1):
        try:
            if worst.file_name is None:
                raise DataError(f"image {worst.image_id!r} has no file_name")
            picture = read_image(image_path(image_dir, worst.file_name, "results"))
        except DataError as error:
            log.warning("not drawn: %s", error.message)
            continue
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        data = cv2.imencode(".jpg", draw_image(picture, worst, analysis), quality)[1].tobytes()
        drawn.append(write_atomically(folder / f"worst_{rank:02d}.jpg", data))
    return drawn


def draw_image(picture: Image, worst: DrawnImage, analysis: ErrorAnalysis) -> Image:
    """Returns truth on the left and predictions on the right, over a legend."""
    panes = (
        _draw(picture, worst.objects, [_object_tag(box, analysis) for box in worst.objects]),
        _draw(picture, worst.detections, [_tag(box, analysis) for box in worst.detections]),
    )
    captions = ("truth", f"predictions, score >= {analysis.score_thr:g}")
    name = middle_cut(Path(worst.file_name or str(worst.image_id)).name)
    title = f"{name}: costs {100 * worst.cost:.2f} points of AP50"
    return _add_legend(add_title(side_by_side(*panes, captions=captions), title))


def _draw(picture: Image, boxes: Sequence[DrawnBox], tags: Sequence[str]) -> Image:
    """Returns the image with its boxes; mistakes come on top, the best scores first."""
    order = sorted(
        range(len(boxes)), key=lambda i: (boxes[i].state == "correct", -(boxes[i].score or 0))
    )[:_MOST_BOXES]
    large, factor = enlarge(picture, _PANE)
    return draw_tagged_boxes(
        large,
        xyxy([boxes[i].box_xywh for i in order]) * factor,
        [tags[i] for i in order],
        [COLORS.get(boxes[i].state, COLORS["correct"]) for i in order],
        crowd=[boxes[i].state in ("crowd", "ignored") for i in order],
    )


def _tag(box: DrawnBox, analysis: ErrorAnalysis) -> str:
    """Returns class, mistake and score; of a correct detection the score only."""
    if box.state == "correct":
        return _digits(box.score)
    return f"{analysis.classes[box.label]}{_SHORT.get(box.state, '')} {_digits(box.score)}"


def _object_tag(box: DrawnBox, analysis: ErrorAnalysis) -> str:
    """Returns the class and what became of the object; found below the threshold shows a score."""
    low = box.score is not None and box.score < analysis.score_thr
    found = f" ({_digits(box.score)})" if low else ""
    return f"{analysis.classes[box.label]}{_SHORT.get(box.state, '')}{found}"


def _digits(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}".removeprefix("0")


def _add_legend(picture: Image) -> Image:
    """Returns the picture over a strip that names the colours, as wide as the picture."""
    lines: list[list[tuple[int, str]]] = [[]]
    x = _LINE
    for name in COLORS:
        width = _LINE + _text_width(_entry(name)) + _LINE
        if x + width > picture.shape[1] and lines[-1]:
            lines.append([])
            x = _LINE
        lines[-1].append((x, name))
        x += width
    height = _LINE * (len(lines) + len(_NOTES)) + _LINE // 2
    strip = np.full((height, picture.shape[1], 3), 255, np.uint8)
    for y, line in enumerate(lines, start=1):
        for x, name in line:
            corner = (x - 22, _LINE * y - 15)
            cv2.rectangle(strip, corner, (x - 6, _LINE * y + 1), PALETTE[COLORS[name]], -1)
            _write(strip, _entry(name), (x, _LINE * y))
    for y, text in enumerate(_NOTES, start=len(lines) + 1):
        _write(strip, text, (6, _LINE * y))
    return np.asarray(np.vstack([picture, strip]), np.uint8)


def _entry(name: str) -> str:
    short = _SHORT.get(name, "").strip()
    return name if short in ("", name) else f"{name} ({short})"


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)[0][0])


def _write(picture: Image, text: str, place: tuple[int, int]) -> None:
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    cv2.putText(picture, text, place, font, 0.6, black, 1, cv2.LINE_AA)
