"""The tags of boxes: as large as the boxes allow, half transparent, left out where they would hide.

The best scores choose their place first. The best of each class has its tag always, so that a
picture says what its colours mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fldet.pictures.colors import Color, ink_on
from fldet.pictures.lettering import text_mask

Image = npt.NDArray[np.uint8]
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels

_SMALLEST = 10  # pixels of the smallest font that can be read
_SHARE_OF_BOX = 0.3  # height of a font at most, of the shorter side of its box
_MANY = 20  # boxes from which on fonts become smaller
_OPACITY = 0.6  # of a tag; the picture shows through
_MOST_OF_A_TAG = 0.1  # of a tag, that others may cover
_MOST_OF_A_BOX = 0.3  # of another box, that a tag may cover; of its own twice that
_MOST_OF_PICTURE = 0.2  # that all tags together may cover
_ORDER = 0.005  # so much worse is each place than the one before it


@dataclass(frozen=True)
class Tag:
    """What is to be written at a box."""

    box: Rect
    text: str  # ``drawable``, not empty
    color: Color


@dataclass(frozen=True)
class _Placed:
    tag: Tag
    place: Rect
    size: int


def draw_tags(image: Image, tags: Sequence[Tag], size: int) -> None:
    """Draws tags onto an image, the first ones on top, in fonts of at most ``size`` pixels."""
    for one in reversed(_placed(image, tags, size)):
        _draw(image, one)


def put_text(image: Image, text: str, left: int, base: int, size: int, color: Color) -> None:
    """Draws a text that is ``drawable``; its base line starts at (left, base)."""
    mask = text_mask(text, size)
    top = max(0, base - size)
    region = image[top : top + mask.shape[0], left : left + mask.shape[1]]
    share = mask[: region.shape[0], : region.shape[1], None] / 255
    region[:] = np.round(region + share * (np.array(color) - region))


def _placed(image: Image, tags: Sequence[Tag], size: int) -> list[_Placed]:
    size = max(_SMALLEST, round(size * min(1.0, (_MANY / max(1, len(tags))) ** 0.25)))
    boxes = np.array([tag.box for tag in tags], float).reshape(-1, 4)
    placed: list[_Placed] = []
    known: set[Color] = set()
    room = _MOST_OF_PICTURE * image.shape[0] * image.shape[1]
    for row, tag in enumerate(tags):
        x1, y1, x2, y2 = tag.box
        fitting = int(np.clip(_SHARE_OF_BOX * min(x2 - x1, y2 - y1), _SMALLEST, size))
        taken = np.array([one.place for one in placed], float).reshape(-1, 4)
        for font in sorted({fitting, _SMALLEST}, reverse=True):
            place, is_free = _best_place(tag, font, image, boxes, row, taken)
            area = (place[2] - place[0]) * (place[3] - place[1])
            if (is_free and area <= room) or (font == _SMALLEST and tag.color not in known):
                placed.append(_Placed(tag, place, font))
                room -= area
                break
        known.add(tag.color)
    return placed


def _best_place(
    tag: Tag, font: int, image: Image, boxes: Any, row: int, taken: Any
) -> tuple[Rect, bool]:
    """Returns the place at the box's corners that hides least, and whether that is little."""
    x1, y1, x2, y2 = tag.box
    width, height = _extent(tag.text, font)
    tops = (y1 - height, y1, y2, y2 - height + 1)  # above, inside, below, inside at the foot
    places = []
    for top, left in product(tops, (x1, x2 - width + 1)):
        x = max(0, min(left, image.shape[1] - width))
        y = max(0, min(top, image.shape[0] - height))
        places.append((x, y, x + width, y + height))
    corners = np.array(places, float)
    of_tag = _shared_areas(corners, taken).sum(axis=1) / (width * height)
    areas = np.maximum(1, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    of_boxes = _shared_areas(corners, boxes) / areas
    of_boxes[:, row] /= 2
    of_box = of_boxes.max(axis=1)
    best = int(np.argmin(2 * of_tag + of_box + _ORDER * np.arange(len(places))))
    is_free = of_tag[best] <= _MOST_OF_A_TAG and of_box[best] <= _MOST_OF_A_BOX
    return places[best], bool(is_free)


def _shared_areas(some: Any, others: Any) -> Any:
    """Returns (N, M), the areas that N and M boxes share."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=2)


def _margin(font: int) -> int:
    return max(1, font // 6)


def _extent(text: str, font: int) -> tuple[int, int]:
    """Returns width and height of a tag in pixels."""
    height, width = text_mask(text, font).shape
    return width + 2 * _margin(font), height + _margin(font) - 1


def _draw(image: Image, one: _Placed) -> None:
    x1, y1, x2, y2 = one.place
    region = image[y1:y2, x1:x2]
    region[:] = np.round(_OPACITY * np.array(one.tag.color) + (1 - _OPACITY) * region)
    blue, green, red = (int(value) for value in region.reshape(-1, 3).mean(axis=0))
    ink = ink_on((blue, green, red))
    put_text(image, one.tag.text, x1 + _margin(one.size), y1 + one.size, one.size, ink)
