"""Images and boxes on them, with OpenCV: plain functions from arrays to a new image.

Images are (H, W, 3) uint8 in BGR order, boxes xyxy in pixels of the image that is passed. Text in
ASCII is drawn with OpenCV's strokes, which it has for nothing else; other text with fonts
(``fldet.pictures.lettering``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fldet.data.image_files import decode, header_of
from fldet.errors import DataError
from fldet.files import MOST_OF_IMAGE, read_bytes
from fldet.pictures.lettering import drawable, text_mask

Image = npt.NDArray[np.uint8]

Color = tuple[int, int, int]
Point = tuple[int, int]
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels

# Okabe and Ito (2008), told apart with any colour vision; without their black. In BGR.
PALETTE: tuple[Color, ...] = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (115, 158, 0),  # green
    (66, 228, 240),  # yellow
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
    (167, 121, 204),  # purple
)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_PIXELS = 30  # of a font whose capitals are as high as OpenCV's at scale 1
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)
_SMALLEST_PICTURE = 480  # longer side, in pixels: below it text is not readable


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels that suit a picture."""

    line: int
    font_scale: float
    font_thickness: int
    margin: int

    @classmethod
    def of(cls, height: int, width: int) -> "_Style":
        side = min(max(height, width), 3 * min(height, width))  # a strip has little room
        scale = float(np.clip(side / 1500, 0.38, 2.5))
        return cls(
            line=max(1, round(side / 360)),
            font_scale=scale,
            font_thickness=max(1, round(scale * 1.1)),
            margin=max(2, round(scale * 6)),
        )


@dataclass(frozen=True)
class _Mark:
    """A box to draw, with the text of its tag."""

    rect: Rect
    text: str
    color: Color
    crowd: bool


def color_of(label: int) -> Color:
    """Returns the BGR colour of a class; the seven colours repeat."""
    return PALETTE[label % len(PALETTE)]


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
) -> Image:
    """Returns a copy of the image with boxes and their names; small images are enlarged first.

    Tags stay inside the picture and keep off each other where there is room; the boxes with the
    best scores come on top.

    Args:
        image_bgr: (H, W, 3) uint8.
        boxes_xyxy: (N, 4), pixels of ``image_bgr``; parts outside are cut off.
        labels: (N,) class numbers; their colour is ``color_of(label)``.
        class_names: by label; a label without a name shows its number.
        scores: (N,) in [0, 1], shown with two digits; None shows none.
        crowd: (N,) truth values: dashed and hatched, for regions that are not one object.
        title: text above the picture, in a strip that is added; None adds none.

    Returns:
        (H', W', 3) uint8, its longer side at least 480 pixels.

    Raises:
        ValueError: shapes do not fit each other, or the image is not (H, W, 3) uint8.
    """
    _check_image(image_bgr)
    picture, factor = enlarge(image_bgr)
    boxes = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4) * factor
    marks = _marks(boxes, labels, class_names, scores, crowd, picture)
    style = _Style.of(*picture.shape[:2])
    for mark in reversed(marks):
        _draw_box(picture, mark, style)
    places: list[Rect] = []
    for mark in marks:  # the best scores choose their place first, and are drawn last
        places.append(_place(mark.rect, _tag_size(mark.text, style), picture, style.line, places))
    for mark, place in reversed(list(zip(marks, places, strict=True))):
        _draw_tag(picture, place, mark, style)
    return picture if title is None else add_title(picture, title)


def draw_tagged_boxes(
    image_bgr: Image,
    boxes_xyxy: npt.ArrayLike,
    tags: Sequence[str],
    colors: npt.ArrayLike,
    crowd: npt.ArrayLike,
) -> Image:
    """Returns what ``draw_boxes`` does of boxes with a tag and a place in ``PALETTE`` each."""
    # A label gives both colour and text, so each box gets its own.
    labels = np.arange(len(tags)) * len(PALETTE) + np.asarray(colors)
    return draw_boxes(
        image_bgr, boxes_xyxy, labels, [tag for tag in tags for _ in PALETTE], crowd=crowd
    )


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
    """Returns the image under a white strip with black text, wide enough for the text."""
    style = _Style.of(*image.shape[:2])
    scale, text = style.font_scale * 1.2, drawable(text)
    (width, height), base = _text_size(text, scale, style.font_thickness)
    margin = height // 2 + 2
    image = _pad(image, image.shape[0], max(image.shape[1], width + 2 * margin))
    strip = np.full((height + base + 2 * margin, image.shape[1], 3), 255, np.uint8)
    place = (margin, margin + height)
    _put_text(strip, text, place, scale, _BLACK, style.font_thickness)
    return _u8(np.vstack([strip, image]))


def _check_image(image: Any) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")


def _marks(
    boxes_xyxy: npt.NDArray[np.float64],
    labels: npt.ArrayLike,
    class_names: Sequence[str],
    scores: npt.ArrayLike | None,
    crowd: npt.ArrayLike | None,
    image: Image,
) -> list[_Mark]:
    """Returns what is to be drawn, best scores first, without boxes outside the image."""
    count = len(boxes_xyxy)
    label_of = _column("labels", labels, count).astype(int).tolist()
    is_crowd = [False] * count if crowd is None else _column("crowd", crowd, count).tolist()
    score_of = None if scores is None else _column("scores", scores, count).astype(float)
    order = range(count) if score_of is None else np.argsort(-score_of, kind="stable").tolist()
    marks = []
    for i in order:
        rect = _clip(boxes_xyxy[i], image)
        if rect is not None:
            score = "" if score_of is None else f" {score_of[i]:.2f}"
            name = drawable(_name(label_of[i], class_names), 48)
            name += " (crowd)" if is_crowd[i] else ""
            marks.append(_Mark(rect, name + score, color_of(label_of[i]), bool(is_crowd[i])))
    return marks


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


def _draw_box(image: Image, mark: _Mark, style: _Style) -> None:
    x1, y1, x2, y2 = mark.rect
    if not mark.crowd:
        cv2.rectangle(image, (x1, y1), (x2, y2), mark.color, style.line)
        return
    _hatch(image, mark.rect, mark.color, style)
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for start, end in pairwise(corners):
        for a, b in _dashes(start, end, 8 * style.line):
            cv2.line(image, a, b, mark.color, style.line)


def _dashes(start: Point, end: Point, length: int) -> Iterator[tuple[Point, Point]]:
    """Yields the ends of dashes as long as the gaps between them, about ``length`` pixels."""
    a, b = np.array(start, float), np.array(end, float)
    count = max(1, int(np.abs(b - a).max() / (2 * length) + 0.5))
    for index in range(count):
        first, last = a + (b - a) * index / count, a + (b - a) * (index + 0.5) / count
        yield (round(first[0]), round(first[1])), (round(last[0]), round(last[1]))


def _hatch(image: Image, rect: Rect, color: Color, style: _Style) -> None:
    """Draws thin diagonals over a region, half transparent."""
    x1, y1, x2, y2 = rect
    region = image[y1 : y2 + 1, x1 : x2 + 1]
    lines = region.copy()
    height, width = region.shape[:2]
    thickness = max(1, style.line // 2)
    for offset in range(0, height + width, 12 * style.line):
        cv2.line(lines, (offset, 0), (offset - height, height), color, thickness, cv2.LINE_AA)
    region[:] = cv2.addWeighted(lines, 0.6, region, 0.4, 0)


def _tag_size(text: str, style: _Style) -> tuple[int, int]:
    """Returns width and height of a tag in pixels."""
    (width, height), base = _text_size(text, style.font_scale, style.font_thickness)
    return width + 2 * style.margin, height + base + style.margin


def _draw_tag(image: Image, place: Rect, mark: _Mark, style: _Style) -> None:
    x1, y1, x2, y2 = place
    (_, height), _ = _text_size(mark.text, style.font_scale, style.font_thickness)
    cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), mark.color, -1)
    origin = (x1 + style.margin, y1 + style.margin // 2 + height + 1)
    thickness, ink = style.font_thickness, _ink(mark.color)
    _put_text(image, mark.text, origin, style.font_scale, ink, thickness)


def _text_size(text: str, scale: float, thickness: int) -> tuple[tuple[int, int], int]:
    """Returns (width, height above the base line), and the depth below it, in pixels."""
    if text.isascii():
        (width, height), base = cv2.getTextSize(text, _FONT, scale, thickness)
        return (width, height), base
    size = round(_FONT_PIXELS * scale)
    height, width = text_mask(text, size).shape
    return (width, size), height - size


def _put_text(
    image: Image, text: str, origin: Point, scale: float, color: Color, thickness: int
) -> None:
    """Draws a text that is ``drawable`` with the left end of its base line at a point."""
    if text.isascii():
        cv2.putText(image, text, origin, _FONT, scale, color, thickness, cv2.LINE_AA)
        return
    size = round(_FONT_PIXELS * scale)
    mask = text_mask(text, size)
    left, top = origin[0], max(0, origin[1] - size)
    region = image[top : top + mask.shape[0], left : left + mask.shape[1]]
    share = mask[: region.shape[0], : region.shape[1], None] / 255
    region[:] = np.round(region + share * (np.array(color) - region))


def _place(
    rect: Rect, size: tuple[int, int], image: Image, line: int, taken: Sequence[Rect]
) -> Rect:
    """Returns the place near the box's corners that covers least of the tags already there."""
    x1, y1, x2, y2 = rect
    width, height = size
    lefts = (x1 - line // 2, x2 - width + 1)
    tops = (y1 - height, y1, y2, y2 - height + 1)  # above, inside, below, inside at the foot
    places = []
    for top, left in product(tops, lefts):
        x = max(0, min(left, image.shape[1] - width))
        y = max(0, min(top, image.shape[0] - height))
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_shared_area(place, other) for other in taken))


def _shared_area(a: Rect, b: Rect) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def _ink(color: Color) -> Color:
    """Returns black or white, whichever is easier to read on a colour."""
    blue, green, red = color
    return _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 120 else _WHITE


def _pad(image: Image, height: int, width: int) -> Image:
    """Returns the image with white to the right and below."""
    below, right = height - image.shape[0], width - image.shape[1]
    return _u8(np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255))


def _u8(image: Any) -> Image:
    return np.asarray(image, dtype=np.uint8)
