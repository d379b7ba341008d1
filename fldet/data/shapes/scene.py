"""One image of Shapes: what lies where, and the truth about it."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fldet.data.shapes.drawing import (
    Colour,
    Contour,
    Image,
    Layer,
    Mask,
    alpha_mask,
    area,
    clipped_xywh,
    contrasting_colour,
    distractor_outline,
    draw_background,
    even_odd_area,
    expose,
    iou_xywh,
    object_outline,
    overlap_xywh,
    paint,
    pose,
    rle,
)

SPLITS = ("train", "val")


class ShapeClass(NamedTuple):
    """A class of objects: its share of all objects, and the middle of its hues in degrees."""

    name: str
    category_id: int
    frequency: float
    hue: float


# Category ids have gaps, as COCO's do.
CLASSES = (
    ShapeClass("disc", 1, 0.35, 0),
    ShapeClass("box", 2, 0.23, 200),
    ShapeClass("triangle", 3, 0.17, 120),
    ShapeClass("star", 5, 0.11, 50),
    ShapeClass("ring", 6, 0.08, 260),
    ShapeClass("cross", 8, 0.06, 310),
)
_HUE_SPREAD = 35.0  # degrees on either side of the middle
_MAX_ASPECTS = {"disc": 1.5, "box": 1.8, "triangle": 1.3, "star": 1.1, "ring": 1.1, "cross": 1.1}
_MAX_TILT = math.radians(20)  # of objects; distractors lie in any direction
_DISTRACTORS = ("outline", "gap", "arms", "half", "blob")
_EMPTY_FRAC, _CROWDED_FRAC, _CROWD_REGION_FRAC = 0.08, 0.05, 0.04  # of the images
_MIN_VISIBLE_OBJECT, _MIN_VISIBLE_DISTRACTOR = 0.4, 0.85  # of the full shape
_MAX_IOU = 0.45  # between the boxes of objects, below the usual NMS threshold
_LOOSE_FRAC = 0.25  # of the images: shapes of like size may hide much of each other
_MAX_OVERLAP, _LIKE_SIZE = 0.2, 6.0  # elsewhere: of the smaller box; ratio of areas
_TRIES = 8  # random places tried for one shape


@dataclass(frozen=True)
class Drawing:
    """One image and its truth."""

    image: NDArray[np.uint8]  # (H, W, 3) BGR
    annotations: list[dict[str, Any]]  # COCO's, without ``id`` and ``image_id``; ``bbox`` is xywh


@dataclass
class _Scene:
    """The layers placed so far, nearest first, and what they cover."""

    covered: Mask
    loose: bool = True
    layers: list[Layer] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)  # of the layers, as x, y, w, h
    annotations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.covered.shape
        return height, width


def draw_image(seed: int, split: str, index: int, image_size: int) -> Drawing:
    """Returns image ``index`` of a split; the same one for the same arguments."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    height, width = _draw_size(rng, image_size)
    background = draw_background(rng, height, width)
    scene = _Scene(covered=np.zeros((height, width), dtype=np.bool_))
    _fill_scene(rng, scene, background)
    canvas = background.copy()
    for layer in reversed(scene.layers):  # farthest first
        paint(canvas, layer)
    return Drawing(expose(rng, canvas), scene.annotations)


def _draw_size(rng: Generator, image_size: int) -> tuple[int, int]:
    """Returns (height, width): 60 % landscape, 25 % portrait, 15 % square."""
    short = round(image_size * 0.75)
    sizes = ((short, image_size), (image_size, short), (image_size, image_size))
    return sizes[rng.choice(3, p=(0.6, 0.25, 0.15))]


def _fill_scene(rng: Generator, scene: _Scene, background: Image) -> None:
    kind = rng.choice(
        ("empty", "crowded", "ordinary"),
        p=(_EMPTY_FRAC, _CROWDED_FRAC, 1 - _EMPTY_FRAC - _CROWDED_FRAC),
    )
    if kind != "empty" and rng.random() < _CROWD_REGION_FRAC:
        _place_crowd_region(rng, scene, background)
    scene.loose = kind == "crowded" or rng.random() < _LOOSE_FRAC
    image_size = max(scene.size)
    if kind == "crowded":
        count = int(rng.integers(20, 27))
        object_sizes = [image_size * rng.uniform(0.12, 0.18) for _ in range(count)]
    else:
        count = 0 if kind == "empty" else int(rng.integers(1, 8))
        object_sizes = [_ordinary_size(rng, image_size) for _ in range(count)]
    low, high = {"empty": (3, 9), "crowded": (0, 3), "ordinary": (0, 3)}[kind]
    distractor_sizes = [image_size * rng.uniform(0.14, 0.4) for _ in range(rng.integers(low, high))]
    shapes = [(size, True) for size in object_sizes]
    shapes += [(size, False) for size in distractor_sizes]
    # Small ones lie in front of large ones, with some disorder.
    for size, is_object in sorted(shapes, key=lambda shape: shape[0] * rng.uniform(0.5, 1.5)):
        if is_object:
            _place_object(rng, scene, background, size)
        else:
            _place_distractor(rng, scene, background, size)


def _ordinary_size(rng: Generator, image_size: int) -> float:
    """Returns a diameter in pixels; at 160 pixels 25 % small, 57 % medium, 18 % large ones."""
    low, high = ((0.14, 0.22), (0.22, 0.6), (0.72, 0.95))[rng.choice(3, p=(0.25, 0.57, 0.18))]
    return image_size * math.exp(rng.uniform(math.log(low), math.log(high)))


def _place_object(rng: Generator, scene: _Scene, background: Image, size: float) -> None:
    """Adds one object where there is room for it; after a few tries, none."""
    shape = CLASSES[rng.choice(len(CLASSES), p=[c.frequency for c in CLASSES])]
    unit_contours = object_outline(rng, shape.name)
    for _ in range(_TRIES):
        contours = pose(rng, unit_contours, size, _MAX_ASPECTS[shape.name], _MAX_TILT, scene.size)
        bbox = clipped_xywh(contours, scene.size)
        mask = alpha_mask(contours, scene.size) >= 128
        if (
            _has_room(scene, contours, mask, _MIN_VISIBLE_OBJECT)
            and _keeps_distance(scene, bbox)
            and all(
                iou_xywh(bbox, other["bbox"]) <= (0.0 if other["iscrowd"] else _MAX_IOU)
                for other in scene.annotations
            )
        ):
            hues = (shape.hue - _HUE_SPREAD, shape.hue + _HUE_SPREAD)
            colour = contrasting_colour(rng, background[mask].mean(axis=0), hues=hues)
            _add_layer(rng, scene, contours, mask, colour)
            scene.annotations.append(_annotation(shape, bbox, int(mask.sum()), iscrowd=0))
            return


def _place_distractor(rng: Generator, scene: _Scene, background: Image, size: float) -> None:
    """Adds one distractor where there is room for it; after a few tries, none."""
    unit_contours = distractor_outline(rng, str(rng.choice(_DISTRACTORS)))
    for _ in range(_TRIES):
        contours = pose(rng, unit_contours, size, 1.3, math.pi, scene.size)
        mask = alpha_mask(contours, scene.size) >= 128
        bbox = clipped_xywh(contours, scene.size)
        if _has_room(scene, contours, mask, _MIN_VISIBLE_DISTRACTOR) and _keeps_distance(
            scene, bbox
        ):
            colour = contrasting_colour(rng, background[mask].mean(axis=0))
            _add_layer(rng, scene, contours, mask, colour)
            return


def _place_crowd_region(rng: Generator, scene: _Scene, background: Image) -> None:
    """Adds a cluster of tiny objects of one class and the one region that stands for them."""
    height, width = scene.size
    shape = CLASSES[rng.choice(2)]  # tiny discs and boxes can still be told apart
    tiny = 0.03 * max(scene.size)
    half = np.array([rng.uniform(0.14, 0.25) * width, rng.uniform(0.14, 0.25) * height])
    centre = np.array(
        [rng.uniform(half[0], width - half[0]), rng.uniform(half[1], height - half[1])]
    )
    colour = contrasting_colour(rng, background.mean(axis=(0, 1)))
    region = np.zeros((height, width), dtype=np.bool_)
    for _ in range(rng.integers(30, 60)):
        place = centre + rng.uniform(-1, 1, size=2) * (half - tiny)
        contours = [
            contour * tiny * rng.uniform(0.35, 0.5) + place
            for contour in object_outline(rng, shape.name)
        ]
        mask = alpha_mask(contours, scene.size) >= 128
        if not (mask & region).any():
            _add_layer(rng, scene, contours, mask, colour)
            region |= mask
    ys, xs = np.nonzero(region)
    x, y = int(xs.min()), int(ys.min())
    bbox = [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y]
    annotation = _annotation(shape, bbox, int(region.sum()), iscrowd=1)
    scene.annotations.append({**annotation, "segmentation": rle(region)})


def _annotation(
    shape: ShapeClass, bbox: list[float] | list[int], area: int, *, iscrowd: int
) -> dict[str, Any]:
    return {"category_id": shape.category_id, "bbox": bbox, "area": area, "iscrowd": iscrowd}


def _add_layer(
    rng: Generator, scene: _Scene, contours: list[Contour], mask: Mask, colour: Colour
) -> None:
    scene.layers.append(Layer(contours, colour, light_angle=rng.uniform(0, 2 * math.pi)))
    scene.covered |= mask
    scene.boxes.append(clipped_xywh(contours, scene.size))


def _has_room(scene: _Scene, contours: list[Contour], mask: Mask, min_visible: float) -> bool:
    """Returns whether enough of the shape would be seen behind the layers placed so far."""
    visible = np.count_nonzero(mask & ~scene.covered)
    return visible > 0 and visible >= min_visible * even_odd_area(contours)


def _keeps_distance(scene: _Scene, bbox: list[float]) -> bool:
    """Returns whether a box overlaps no other of like size by much; anything goes if loose."""
    return scene.loose or all(
        overlap_xywh(bbox, other) <= _MAX_OVERLAP * min(area(bbox), area(other))
        or max(area(bbox), area(other)) > _LIKE_SIZE * min(area(bbox), area(other))
        for other in scene.boxes
    )
