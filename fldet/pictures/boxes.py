"""Images and boxes on them: plain functions from arrays to a new image.

Images are (H, W, 3) uint8 in BGR order, boxes xyxy in pixels of the image that is passed. Lines are
OpenCV's; letters are Pillow's (``fldet.pictures.lettering``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fldet.data.image_files import decode, header_of
from fldet.errors import DataError
from fldet.files import MOST_OF_IMAGE, read_bytes
from fldet.pictures.colors import PALETTE, Color, color_of
from fldet.pictures.lettering import drawable, text_mask
from fldet.pictures.tags import Rect, Tag, draw_tags, put_text

Image = npt.NDArray[np.uint8]
Point = tuple[int, int]

_BLACK: Color = (0, 0, 0)
_SMALLEST_TITLE = 12  # font of a title, in pixels
_SMALLEST_PICTURE = 480  # longer side, in pixels: below it text is not readable


@dataclass(frozen=True)
class DrawOptions:
    """What is drawn at boxes."""

    hide_labels: bool = False  # no class names; colours tell classes apart
    hide_scores: bool = False
    line_width: int | None = None  # pixels; None suits the picture and the box


_DEFAULT_OPTIONS = DrawOptions()


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels that suit a picture."""

    line: int
    font: int

    @classmethod
    def of(cls, height: int, width: int) -> "_Style":
        side = min(max(height, width), 3 * min(height, width))  # a strip has little room
        return cls(line=max(1, round(side / 360)), font=round(np.clip(side / 50, 12, 75)))


@dataclass(frozen=True)
class _Mark:
    """A box to draw, with the text of its tag."""

    rect: Rect
    text: str
    color: Color
    crowd: bool


def enlarge(image: Image, smallest: int = _SMALLEST_PICTURE) -> tuple[Image, float]:
    """Returns the image with its longer side at least ``smallest`` pixels, and the factor."""
    factor = max(1.0, smallest / max(image.shape[:2]))
    if factor == 1.0:
        return image.copy(), 1.0
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return _u8(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)), factor


def read_image(path: Path) -> Image:
    """Returns an image file as (H, W, 3) uint8 BGR, upright as its EXIF data say.

    Raises:
        DataError: there is no such file, it is too large, or OpenCV cannot read it.
    """
    # Not cv2.imread: on Windows it cannot open names with letters beyond ASCII.
    data = read_bytes(path, "image", most=MOST_OF_IMAGE)
    image = decode(data)
    if image is None:
        reason = header_of(data).fault or "not an image that OpenCV can read"
        raise DataError(f"cannot read the image {path}: {reason}")
    return image


def draw_boxes(
    image_bgr: Image,
    boxes_xyxy: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    scores: npt.ArrayLike | None = None,
    crowd: npt.ArrayLike | None = None,
    title: str | None = None,
    options: DrawOptions = _DEFAULT_OPTIONS,
    smallest: int = _SMALLEST_PICTURE,
) -> Image:
    """Returns a copy of the image with boxes and their names; small images are enlarged first.

    Tags stay inside the picture and are left out where they would hide other tags or objects; the
    boxes with the best scores come on top.

    Args:
        image_bgr: (H, W, 3) uint8.
        boxes_xyxy: (N, 4), pixels of ``image_bgr``; parts outside are cut off.
        labels: (N,) class numbers; their colour is ``color_of(label)``.
        class_names: by label; a label without a name shows its number.
        scores: (N,) in [0, 1], shown with two digits; None shows none.
        crowd: (N,) truth values: dashed and hatched, for regions that are not one object.
        title: text above the picture, in a strip that is added; None adds none.
        options: what is left out, and how thick lines are.
        smallest: pixels of the longer side that small images are enlarged to; 1 enlarges none.

    Returns:
        (H', W', 3) uint8, its longer side at least ``smallest`` pixels.

    Raises:
        ValueError: shapes do not fit each other, or the image is not (H, W, 3) uint8.
    """
    _check_image(image_bgr)
    count = len(np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4))
    label_of = _column("labels", labels, count).astype(int).tolist()
    score_of = None if scores is None else _column("scores", scores, count).astype(float)
    is_crowd = _column("crowd", np.zeros(count) if crowd is None else crowd, count).astype(bool)
    order = range(count) if score_of is None else np.argsort(-score_of, kind="stable").tolist()
    texts = []
    for row, label in enumerate(label_of):
        words = [] if options.hide_labels else [drawable(_name(label, class_names), 48)]
        words += ["(crowd)"] if is_crowd[row] and not options.hide_labels else []
        words += [] if score_of is None or options.hide_scores else [f"{score_of[row]:.2f}"]
        texts.append(" ".join(words))
    picture, factor = enlarge(image_bgr, smallest)
    boxes = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4) * factor
    colors = list(map(color_of, label_of))
    _draw_marks(picture, _marks(picture, boxes, texts, colors, is_crowd, order), options)
    return picture if title is None else add_title(picture, title)


def draw_tagged_boxes(
    image_bgr: Image,
    boxes_xyxy: npt.ArrayLike,
    tags: Sequence[str],
    colors: npt.ArrayLike,
    crowd: npt.ArrayLike,
) -> Image:
    """Returns what ``draw_boxes`` does of boxes with a tag and a place in ``PALETTE`` each."""
    _check_image(image_bgr)
    picture, factor = enlarge(image_bgr)
    boxes = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4) * factor
    texts = [drawable(tag, 60) for tag in tags]
    of_box = [PALETTE[place] for place in np.asarray(colors, int).reshape(-1)]
    marks = _marks(picture, boxes, texts, of_box, np.asarray(crowd, bool), range(len(texts)))
    _draw_marks(picture, marks, _DEFAULT_OPTIONS)
    return picture


def xyxy(boxes_xywh: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns (N, 4) corners of boxes; none are (0, 4)."""
    boxes = np.array(boxes_xywh, float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def side_by_side(
    prediction: Image,
    ground_truth: Image,
    *,
    captions: tuple[str, str] = ("prediction", "ground truth"),
) -> Image:
    """Returns one picture: prediction on the left, ground truth on the right, captions above.

    The lower of the two is filled up with white.
    """
    panes = [
        add_title(pane, text)
        for pane, text in zip((prediction, ground_truth), captions, strict=True)
    ]
    height = max(pane.shape[0] for pane in panes)
    panes = [_pad(pane, height, pane.shape[1]) for pane in panes]
    gap = np.full((height, max(4, height // 80), 3), 255, np.uint8)
    return _u8(np.hstack([panes[0], gap, panes[1]]))


def add_title(image: Image, text: str) -> Image:
    """Returns the image under a white strip with black text, and both as wide as the text needs."""
    font = round(1.2 * _Style.of(*image.shape[:2]).font)
    text = drawable(text)
    too_wide = (text_mask(text, font).shape[1] + font) / image.shape[1]
    font = max(_SMALLEST_TITLE, min(font, int(font / too_wide)))
    height, width = text_mask(text, font).shape
    margin = font // 2 + 2
    image = _pad(image, image.shape[0], max(image.shape[1], width + 2 * margin))
    strip = np.full((height + margin, image.shape[1], 3), 255, np.uint8)
    put_text(strip, text, margin, font + margin // 2, font, _BLACK)
    return _u8(np.vstack([strip, image]))


def _check_image(image: Any) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")


def _marks(
    picture: Image,
    boxes_xyxy: npt.NDArray[np.float64],
    texts: Sequence[str],
    colors: Sequence[Color],
    is_crowd: npt.NDArray[np.bool_],
    order: Iterable[int],
) -> list[_Mark]:
    """Returns what is to be drawn in this order, without boxes outside the picture."""
    rects = [_clip(box, picture) for box in boxes_xyxy]
    return [
        _Mark(rect, texts[row], colors[row], bool(is_crowd[row]))
        for row in order
        if (rect := rects[row]) is not None
    ]


def _draw_marks(picture: Image, marks: Sequence[_Mark], options: DrawOptions) -> None:
    """Draws boxes, then their tags; the first ones on top."""
    style = _Style.of(*picture.shape[:2])
    for mark in reversed(marks):
        x1, y1, x2, y2 = mark.rect
        fitting = max(1, min(style.line, min(x2 - x1, y2 - y1) // 12))
        _draw_box(picture, mark, options.line_width or fitting)
    tags = [Tag(mark.rect, mark.text, mark.color) for mark in marks if mark.text]
    draw_tags(picture, tags, style.font)


def _column(name: str, values: npt.ArrayLike, count: int) -> npt.NDArray[Any]:
    if np.size(values) != count:
        raise ValueError(f"expected {count} {name}, one for each box, got {np.size(values)}")
    return np.asarray(values).reshape(-1)


def _name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def _clip(box_xyxy: npt.NDArray[np.float64], image: Image) -> Rect | None:
    """Returns the part of a box inside the image, None if there is none."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box_xyxy
    if not np.isfinite(box_xyxy).all() or x2 < 0 or y2 < 0 or x1 > width or y1 > height:
        return None
    xs = np.clip([x1, x2], 0, width - 1)
    ys = np.clip([y1, y2], 0, height - 1)
    return round(xs[0]), round(ys[0]), round(xs[1]), round(ys[1])


def _draw_box(image: Image, mark: _Mark, line: int) -> None:
    x1, y1, x2, y2 = mark.rect
    if not mark.crowd:
        cv2.rectangle(image, (x1, y1), (x2, y2), mark.color, line)
        return
    _hatch(image, mark.rect, mark.color, line)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for start, end in pairwise(corners):
        for a, b in _dashes(start, end, 8 * line):
            cv2.line(image, a, b, mark.color, line)


def _dashes(start: Point, end: Point, length: int) -> Iterator[tuple[Point, Point]]:
    """Yields the ends of dashes as long as the gaps between them, about ``length`` pixels."""
    a, b = np.array(start, float), np.array(end, float)
    count = max(1, int(np.abs(b - a).max() / (2 * length) + 0.5))
    for index in range(count):
        first, last = a + (b - a) * index / count, a + (b - a) * (index + 0.5) / count
        yield (round(first[0]), round(first[1])), (round(last[0]), round(last[1]))


def _hatch(image: Image, rect: Rect, color: Color, line: int) -> None:
    """Draws thin diagonals over a region, half transparent."""
    x1, y1, x2, y2 = rect
    region = image[y1 : y2 + 1, x1 : x2 + 1]
    lines = region.copy()
    height, width = region.shape[:2]
    thickness = max(1, line // 2)
    for offset in range(0, height + width, 12 * line):
        cv2.line(lines, (offset, 0), (offset - height, height), color, thickness, cv2.LINE_AA)
    region[:] = cv2.addWeighted(lines, 0.6, region, 0.4, 0)


def _pad(image: Image, height: int, width: int) -> Image:
    """Returns the image with white to the right and below."""
    below, right = height - image.shape[0], width - image.shape[1]
    return _u8(np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255))


def _u8(image: Any) -> Image:
    return np.asarray(image, dtype=np.uint8)
