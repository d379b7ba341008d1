"""Outlines, geometry and painting of the shapes that ``fldet.data.shapes.scene`` arranges."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Contour: TypeAlias = NDArray[np.float64]  # (n, 2) corners as x, y; image contours in pixels
Image: TypeAlias = NDArray[np.float32]  # (H, W, 3) BGR, 0 to 255
Mask: TypeAlias = NDArray[np.bool_]  # (H, W)
Colour: TypeAlias = NDArray[np.float64]  # (3,) BGR, 0 to 255


@dataclass(frozen=True)
class Layer:
    """One shape to paint: even-odd filled contours in one colour, lit from one side."""

    contours: list[Contour]
    colour: Colour
    light_angle: float = 0.0


# ---------------------------------------------------------------- outlines, in the unit circle


def object_outline(rng: Generator, name: str) -> list[Contour]:
    """Returns the contours of a class, centred on 0 with radius 1."""
    if name == "ring":
        wall = rng.uniform(0.35, 0.5)
        return [_regular(48), (1 - wall) * _regular(48)]
    if name == "cross":
        return [_cross(rng.uniform(0.26, 0.34), num_arms=4)]
    if name == "star":
        return [_star(5, rng.uniform(0.4, 0.48))]
    if name == "box":  # with sides along the axes, so that stretching keeps its right angles
        return [math.sqrt(0.5) * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])]
    return [_regular(48 if name == "disc" else 3)]


def distractor_outline(rng: Generator, kind: str) -> list[Contour]:
    """Returns the contours of a shape that is no object, centred on 0 with radius about 1."""
    if kind == "outline":
        outer = object_outline(rng, str(rng.choice(("disc", "box", "triangle", "star"))))[0]
        return [outer, 0.84 * outer]
    if kind == "gap":
        return [_open_ring(rng.uniform(0.35, 0.5), gap=math.radians(rng.uniform(70, 200)))]
    if kind == "arms":
        return [_cross(rng.uniform(0.26, 0.34), num_arms=int(rng.integers(2, 4)))]
    if kind == "half":
        return [_arc(1.0, 0, math.pi) - (0, 0.42)]
    return [_blob(rng)]


def _arc(radius: float, start: float, stop: float, num: int = 48) -> Contour:
    angles = np.linspace(start, stop, num)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(num_corners: int) -> Contour:
    """Returns the corners of a regular polygon, the first one on top."""
    return _arc(1.0, -math.pi / 2, 1.5 * math.pi, num_corners + 1)[:-1]


def _star(num_points: int, inner_radius: float) -> Contour:
    star = _regular(2 * num_points)
    star[1::2] *= inner_radius
    return star


def _open_ring(wall: float, gap: float) -> Contour:
    outer = _arc(1.0, gap, 2 * math.pi)
    return np.concatenate([outer, (1 - wall) * outer[::-1]])


def _cross(half_width: float, num_arms: int) -> Contour:
    """Returns a plus sign without the last of its four arms; two arms make an L."""
    corners = []
    for arm in range(4):
        along = np.array([math.cos(arm * math.pi / 2), math.sin(arm * math.pi / 2)])
        across = np.array([-along[1], along[0]])
        length = 1.0 if arm < num_arms else half_width
        corners += [length * along - half_width * across, length * along + half_width * across]
        corners.append(half_width * along + half_width * across)
    return np.array(corners)


def _blob(rng: Generator) -> Contour:
    """Returns a smooth closed curve with two to four bumps."""
    angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    radius = np.full_like(angles, 0.7)
    for bumps in (2, 3, 4):
        radius += rng.uniform(0.08, 0.16) * np.cos(bumps * angles + rng.uniform(0, 2 * math.pi))
    return radius[:, None] * _regular(64)


def pose(
    rng: Generator,
    unit_contours: list[Contour],
    diameter: float,
    max_aspect: float,
    max_tilt: float,
    image_hw: tuple[int, int],
) -> list[Contour]:
    """Returns the contours stretched, turned and moved to a random place, in pixels."""
    height, width = image_hw
    stretch = math.exp(rng.uniform(-1, 1) * math.log(max_aspect) / 2)
    angle = rng.uniform(-max_tilt, max_tilt)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    scale = np.array([stretch, 1 / stretch]) * diameter / 2
    margin = min(0.35 * diameter, 0.45 * height, 0.45 * width)
    place = (rng.uniform(margin, width - margin), rng.uniform(margin, height - margin))
    return [contour * scale @ rotation.T + place for contour in unit_contours]


# ---------------------------------------------------------------- geometry


def even_odd_area(contours: list[Contour]) -> float:
    """Returns the area in square pixels of an outline less that of the hole inside it."""
    areas = [cv2.contourArea(contour.astype(np.float32)) for contour in contours]
    return areas[0] - sum(areas[1:])


def clipped_xywh(contours: list[Contour], image_hw: tuple[int, int]) -> list[float]:
    """Returns the box of the whole shape, clipped to the image, rounded to 0.01 pixels."""
    height, width = image_hw
    x1, y1 = np.clip(contours[0].min(axis=0), 0, (width, height)).round(2)
    x2, y2 = np.clip(contours[0].max(axis=0), 0, (width, height)).round(2)
    return [float(x1), float(y1), round(float(x2 - x1), 2), round(float(y2 - y1), 2)]


def area(xywh: list[float]) -> float:
    """Returns the area of a box, in square pixels."""
    return xywh[2] * xywh[3]


def overlap_xywh(a: list[float], b: list[float]) -> float:
    """Returns the area that two boxes share, in square pixels."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def iou_xywh(a: list[float], b: list[float]) -> float:
    """Returns the intersection over union of two boxes; 0 for two empty ones."""
    overlap = overlap_xywh(a, b)
    return overlap / max(area(a) + area(b) - overlap, 1e-9)


def rle(mask: Mask) -> dict[str, Any]:
    """Returns COCO's uncompressed run lengths: column by column, zeros first."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    bounds = [0, *changes, flat.size]
    return {"counts": np.diff(bounds).tolist(), "size": list(mask.shape)}


# ---------------------------------------------------------------- painting


def alpha_mask(contours: list[Contour], image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns how much of each pixel lies within the contours (even-odd), 0 to 255."""
    fine = 4  # sub-pixels per side; OpenCV's own anti-aliasing widens a shape by half a pixel
    height, width = image_hw
    mask = np.zeros(image_hw, dtype=np.uint8)
    x1, y1 = np.floor(contours[0].min(axis=0)).astype(int).clip(0, (width, height))
    x2, y2 = np.ceil(contours[0].max(axis=0)).astype(int).clip(0, (width, height))
    if x1 < x2 and y1 < y2:
        # OpenCV puts the centre of the first pixel at 0, boxes have it at 0.5.
        corners = [
            np.rint((contour - (x1, y1)) * fine - 0.5).astype(np.int32) for contour in contours
        ]
        window = np.zeros((fine * (y2 - y1), fine * (x2 - x1)), dtype=np.uint8)
        cv2.fillPoly(window, corners, 255)
        size = (int(x2 - x1), int(y2 - y1))
        mask[y1:y2, x1:x2] = cv2.resize(window, size, interpolation=cv2.INTER_AREA)
    return mask


def paint(canvas: Image, layer: Layer) -> None:
    """Paints a layer in place, slightly brighter on its side towards the light."""
    alpha = alpha_mask(layer.contours, (canvas.shape[0], canvas.shape[1]))
    x, y, w, h = cv2.boundingRect(alpha)
    window = np.s_[y : y + h, x : x + w]
    along_light = _ramp(h, w, layer.light_angle)
    lit = np.clip(layer.colour * (1 + 0.16 * along_light[..., None]), 0, 255)
    weight = (alpha[window] / np.float32(255))[..., None]
    canvas[window] += weight * (lit.astype(np.float32) - canvas[window])


def _ramp(height: int, width: int, angle: float) -> Image:
    """Returns (height, width) values that run from about -1 to 1 along a direction."""
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return np.float32(math.cos(angle)) * xs + np.float32(math.sin(angle)) * ys


def random_colour(
    rng: Generator,
    saturation: tuple[float, float] = (0.5, 1.0),
    hues: tuple[float, float] = (0.0, 360.0),
) -> Colour:
    """Returns a colour of a random hue (degrees), saturation and brightness."""
    hue = rng.uniform(*hues) % 360
    hsv = np.array([[[hue, rng.uniform(*saturation), rng.uniform(0.35, 1.0)]]], np.float32)
    return 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float64)


def contrasting_colour(
    rng: Generator,
    other: NDArray[Any],
    minimum: float = 90.0,
    hues: tuple[float, float] = (0.0, 360.0),
) -> Colour:
    """Returns a random colour at least ``minimum`` away, or the farthest of a dozen."""
    colours = []
    for _ in range(12):
        colours.append(random_colour(rng, hues=hues))
        if np.linalg.norm(colours[-1] - other) >= minimum:
            return colours[-1]
    return max(colours, key=lambda colour: float(np.linalg.norm(colour - other)))


def draw_background(rng: Generator, height: int, width: int) -> Image:
    """Returns a gradient under a texture and some lines, of low or high contrast."""
    first, second = (random_colour(rng, saturation=(0.0, 0.35)) for _ in range(2))
    blend = (_ramp(height, width, rng.uniform(0, 2 * math.pi)) / 2.8 + 0.5).clip(0, 1)[..., None]
    canvas = (first + blend * (second - first)).astype(np.float32)
    contrast = np.float32(rng.choice((0.0, 10.0, 22.0, 40.0), p=(0.15, 0.35, 0.35, 0.15)))
    canvas += contrast * _texture(rng, height, width)[..., None]
    canvas = np.ascontiguousarray(canvas.clip(0, 255))
    _draw_clutter_lines(rng, canvas)
    return canvas


def _texture(rng: Generator, height: int, width: int) -> Image:
    """Returns (height, width) values between about -1 and 1: clouds, waves, checks or grain."""
    kind = rng.choice(("clouds", "waves", "checks", "grain"))
    if kind in ("clouds", "grain"):
        cell = rng.uniform(10, 30) if kind == "clouds" else rng.uniform(1.5, 4)
        grid = rng.uniform(-1, 1, size=(int(height / cell) + 2, int(width / cell) + 2))
        grid = grid.astype(np.float32)
        return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    periods = max(height, width) / rng.uniform(8, 40)
    angle = rng.uniform(0, math.pi)
    waves = np.sin(math.pi * periods * _ramp(height, width, angle))
    if kind == "checks":
        waves *= np.sin(math.pi * periods * _ramp(height, width, angle + math.pi / 2))
        waves = np.sign(waves)
    return waves.astype(np.float32)


def _draw_clutter_lines(rng: Generator, canvas: Image) -> None:
    height, width = canvas.shape[:2]
    for _ in range(rng.integers(0, 7) if rng.random() < 0.6 else 0):
        start, stop = (rng.integers(0, (width, height)).tolist() for _ in range(2))
        colour, thickness = random_colour(rng).tolist(), int(rng.integers(1, 4))
        cv2.line(canvas, start, stop, colour, thickness)


def expose(rng: Generator, canvas: Image) -> NDArray[np.uint8]:
    """Returns the finished image: a little blur or none, sensor noise, 8 bits."""
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (3, 3), rng.uniform(0.4, 0.9))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas = canvas + np.float32(rng.uniform(0, 9)) * noise
    return np.rint(canvas).clip(0, 255).astype(np.uint8)
