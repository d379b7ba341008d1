"""Shapes: a synthetic detection data set, drawn on the spot, on which a small RetinaNet learns.

**An object** is a closed outline of one of six classes, filled without a hole (except the ring's),
in one colour: disc (any ellipse up to 1.5:1), box (any rectangle up to 1.8:1), triangle, star (five
points), ring (wall between 0.35 and 0.5 of the radius), cross (four equal arms). It is upright but
for a tilt of up to 20 degrees and of any size. Each class has a range of hues that overlaps with
the next ones, as real objects are known by colour and by shape. Up to 60 % of an object may be
hidden by others or by the border; its box is that of the whole shape, clipped to the image, and its
area that of its pixels inside the image.

**A distractor** looks like one and is not: thin outlines, rings with a gap, crosses that lack an
arm, half discs and smooth blobs, in any colour, so also in those of the classes. It is never hidden
by more than 15 %, so that one can see what is wrong.

**A crowd** (``iscrowd=1``) is a cluster of objects too tiny to be counted, in one region.

Everything is a function of (seed, split, index of the image): image i stays the same whatever the
number of images.
"""

import json
import math
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fldet.errors import DataError

__all__ = ["CLASSES", "GENERATOR_VERSION", "Drawing", "ShapeClass", "draw_image", "generate_shapes"]

GENERATOR_VERSION = 1  # raise it with every change of a pixel or a box

Contour: TypeAlias = NDArray[np.float64]  # (n, 2) corners as x, y; image contours in pixels
Image: TypeAlias = NDArray[np.float32]  # (H, W, 3) BGR, 0 to 255
Mask: TypeAlias = NDArray[np.bool_]  # (H, W)
Colour: TypeAlias = NDArray[np.float64]  # (3,) BGR, 0 to 255


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
_SPLITS = ("train", "val")

_EMPTY_FRAC, _CROWDED_FRAC, _CROWD_REGION_FRAC = 0.08, 0.05, 0.04  # of the images
_MIN_VISIBLE_OBJECT, _MIN_VISIBLE_DISTRACTOR = 0.4, 0.85  # of the full shape
_MAX_IOU = 0.45  # between the boxes of objects, below the usual NMS threshold
_LOOSE_FRAC = 0.25  # of the images: shapes of like size may hide much of each other
_MAX_OVERLAP, _LIKE_SIZE = 0.2, 6.0  # elsewhere: of the smaller box; ratio of areas
_TRIES = 8  # random places tried for one shape


@dataclass(frozen=True)
class Drawing:
    """One image and its truth.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        annotations: COCO annotations without ``id`` and ``image_id``; ``bbox`` is x, y, w, h.
    """

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]


@dataclass(frozen=True)
class _Params:
    """What a data set is drawn from; recorded in ``info`` of its annotation files."""

    num_train: int
    num_val: int
    image_size: int
    seed: int
    version: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        lowest = {"num_train": 1, "num_val": 1, "image_size": 64, "seed": 0}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise DataError(
                    f"Shapes cannot be drawn with {name}={getattr(self, name)}",
                    expected=f"expected {name} >= {low}",
                )

    def count(self, split: str) -> int:
        return self.num_train if split == "train" else self.num_val


@dataclass(frozen=True)
class _Layer:
    """One shape to paint: even-odd filled contours in one or two colours."""

    contours: list[Contour]
    colours: list[Colour]
    split_angle: float = 0.0  # of the line between two colours
    light_angle: float = 0.0


@dataclass
class _Scene:
    """The layers placed so far, nearest first, and what they cover."""

    covered: Mask
    loose: bool = True
    layers: list[_Layer] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)  # of the layers, as x, y, w, h
    annotations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.covered.shape
        return height, width


# ---------------------------------------------------------------- the data set on the disk


def generate_shapes(
    root: Path | str,
    *,
    num_train: int = 1600,
    num_val: int = 200,
    image_size: int = 160,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Returns ``root`` after drawing Shapes there in the layout of COCO 2017.

    The files are written beside ``root`` and renamed whole, so several processes may call this at
    once and an interruption leaves no half data set. A data set drawn with the same parameters is
    reused as it is.

    Args:
        root: folder to make, with ``train2017/``, ``val2017/`` and ``annotations/``.
        num_train: images in the training split, >= 1.
        num_val: images in the validation split, >= 1.
        image_size: longer side in pixels, >= 64; the shorter one is three quarters of it, or equal.
        seed: >= 0; another seed gives other images.
        on_progress: called with (images done, images in total) after each image.

    Raises:
        DataError: a parameter is out of range, or ``root`` holds something else.
    """
    root = Path(root)
    params = _Params(num_train, num_val, image_size, seed)
    if _is_taken(root):
        _check_recorded(root, params)
        return root
    partial = root.parent / f".{root.name}.{uuid.uuid4().hex}.partial"
    try:
        _write_dataset(partial, params, on_progress or _ignore)
        _rename_unless_taken(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _check_recorded(root, params)
    return root


def _ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


def _is_taken(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _rename_unless_taken(partial: Path, root: Path) -> None:
    try:
        partial.rename(root)  # replaces an empty folder only
    except OSError:
        if not _is_taken(root):  # else another process was faster, and drew the same
            raise


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def _check_recorded(root: Path, params: _Params) -> None:
    try:
        info = json.loads(_annotation_file(root, "val").read_text(encoding="utf-8"))["info"]
        recorded = info["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{root} exists and is not a Shapes data set",
            expected="expected a new folder, or one that fldet drew",
            hint="choose another data_root",
        ) from None
    if recorded != asdict(params):
        raise DataError(
            f"{root} holds Shapes drawn with {recorded}",
            expected=f"expected {asdict(params)}",
            hint=f"choose another data_root, or remove it: rm -r {root}",
        )


def _write_dataset(root: Path, params: _Params, on_progress: Callable[[int, int], None]) -> None:
    (root / "annotations").mkdir(parents=True)
    total, done = params.num_train + params.num_val, 0
    for split in _SPLITS:
        (root / f"{split}2017").mkdir()
        drawings = []
        for index in range(params.count(split)):
            drawings.append(_draw_file(root / f"{split}2017", split, index, params))
            done += 1
            on_progress(done, total)
        content = json.dumps(_coco_content(drawings, params, split))
        _annotation_file(root, split).write_text(content, encoding="utf-8")


class _Drawn(NamedTuple):
    """What the annotation file says about a written image."""

    file_name: str
    height: int
    width: int
    annotations: list[dict[str, Any]]


def _draw_file(folder: Path, split: str, index: int, params: _Params) -> _Drawn:
    drawing = draw_image(params.seed, split, index, params.image_size)
    file_name = f"{index + 1:012d}.jpg"
    _write_jpeg(folder / file_name, drawing.image)
    height, width = drawing.image.shape[:2]
    return _Drawn(file_name, height, width, drawing.annotations)


def _write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    path.write_bytes(encoded.tobytes())  # unlike cv2.imwrite, raises when the disk is full


def _coco_content(drawings: list[_Drawn], params: _Params, split: str) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, drawn in enumerate(drawings, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": drawn.file_name,
                "height": drawn.height,
                "width": drawn.width,
            }
        )
        for annotation in drawn.annotations:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    return {
        "info": {
            "description": f"Shapes, {split} split, drawn by fldet.data.shapes",
            "version": str(GENERATOR_VERSION),
            "parameters": asdict(params),
        },
        "licenses": [],
        "categories": [
            {"id": c.category_id, "name": c.name, "supercategory": "shape"} for c in CLASSES
        ],
        "images": images,
        "annotations": annotations,
    }


# ---------------------------------------------------------------- one image


def draw_image(seed: int, split: str, index: int, image_size: int) -> Drawing:
    """Returns image ``index`` of a split; the same one for the same arguments.

    Args:
        seed: of the data set, >= 0.
        split: ``train`` or ``val``.
        index: of the image, from 0.
        image_size: longer side in pixels.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    height, width = _draw_size(rng, image_size)
    background = _draw_background(rng, height, width)
    scene = _Scene(covered=np.zeros((height, width), dtype=np.bool_))
    _fill_scene(rng, scene, background)
    canvas = background.copy()
    for layer in reversed(scene.layers):  # farthest first
        _paint(canvas, layer)
    return Drawing(_expose(rng, canvas), scene.annotations)


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
        object_sizes = [_crowded_size(rng, image_size) for _ in range(rng.integers(20, 27))]
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


def _crowded_size(rng: Generator, image_size: int) -> float:
    return image_size * rng.uniform(0.12, 0.18)


def _place_object(rng: Generator, scene: _Scene, background: Image, size: float) -> None:
    """Adds one object where there is room for it; after a few tries, none."""
    shape = CLASSES[rng.choice(len(CLASSES), p=[c.frequency for c in CLASSES])]
    unit_contours = _object_outline(rng, shape.name)
    for _ in range(_TRIES):
        contours = _pose(rng, unit_contours, size, _MAX_ASPECTS[shape.name], _MAX_TILT, scene.size)
        bbox = _clipped_xywh(contours, scene.size)
        mask = _alpha_mask(contours, scene.size) >= 128
        if (
            _has_room(scene, contours, mask, _MIN_VISIBLE_OBJECT)
            and _keeps_distance(scene, bbox)
            and all(
                _iou_xywh(bbox, other["bbox"]) <= (0.0 if other["iscrowd"] else _MAX_IOU)
                for other in scene.annotations
            )
        ):
            hues = (shape.hue - _HUE_SPREAD, shape.hue + _HUE_SPREAD)
            colours = [_contrasting_colour(rng, background[mask].mean(axis=0), hues=hues)]
            _add_layer(rng, scene, contours, mask, colours)
            scene.annotations.append(_annotation(shape, bbox, int(mask.sum()), iscrowd=0))
            return


def _place_distractor(rng: Generator, scene: _Scene, background: Image, size: float) -> None:
    """Adds one distractor where there is room for it; after a few tries, none."""
    kind = str(rng.choice(_DISTRACTORS))
    unit_contours = _distractor_outline(rng, kind)
    for _ in range(_TRIES):
        contours = _pose(rng, unit_contours, size, 1.3, math.pi, scene.size)
        mask = _alpha_mask(contours, scene.size) >= 128
        bbox = _clipped_xywh(contours, scene.size)
        if _has_room(scene, contours, mask, _MIN_VISIBLE_DISTRACTOR) and _keeps_distance(
            scene, bbox
        ):
            colours = [_contrasting_colour(rng, background[mask].mean(axis=0))]
            if kind == "two-colour":
                colours.append(_contrasting_colour(rng, colours[0], minimum=140.0))
            _add_layer(rng, scene, contours, mask, colours)
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
    colour = _contrasting_colour(rng, background.mean(axis=(0, 1)))
    region = np.zeros((height, width), dtype=np.bool_)
    for _ in range(rng.integers(30, 60)):
        place = centre + rng.uniform(-1, 1, size=2) * (half - tiny)
        contours = [
            contour * tiny * rng.uniform(0.35, 0.5) + place
            for contour in _object_outline(rng, shape.name)
        ]
        mask = _alpha_mask(contours, scene.size) >= 128
        if not (mask & region).any():
            _add_layer(rng, scene, contours, mask, [colour])
            region |= mask
    ys, xs = np.nonzero(region)
    x, y = int(xs.min()), int(ys.min())
    bbox = [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y]
    annotation = _annotation(shape, bbox, int(region.sum()), iscrowd=1)
    scene.annotations.append({**annotation, "segmentation": _rle(region)})


def _annotation(
    shape: ShapeClass, bbox: list[float] | list[int], area: int, *, iscrowd: int
) -> dict[str, Any]:
    return {
        "category_id": shape.category_id,
        "bbox": bbox,
        "area": area,
        "iscrowd": iscrowd,
    }


def _add_layer(
    rng: Generator, scene: _Scene, contours: list[Contour], mask: Mask, colours: list[Colour]
) -> None:
    split_angle, light_angle = rng.uniform(0, 2 * math.pi, size=2)
    scene.layers.append(_Layer(contours, colours, split_angle, light_angle))
    scene.covered |= mask
    scene.boxes.append(_clipped_xywh(contours, scene.size))


def _has_room(scene: _Scene, contours: list[Contour], mask: Mask, min_visible: float) -> bool:
    """Returns whether enough of the shape would be seen behind the layers placed so far."""
    visible = np.count_nonzero(mask & ~scene.covered)
    return visible > 0 and visible >= min_visible * _even_odd_area(contours)


def _keeps_distance(scene: _Scene, bbox: list[float]) -> bool:
    """Returns whether a box overlaps no other of like size by much; anything goes if loose."""
    return scene.loose or all(
        _overlap_xywh(bbox, other) <= _MAX_OVERLAP * min(_area(bbox), _area(other))
        or max(_area(bbox), _area(other)) > _LIKE_SIZE * min(_area(bbox), _area(other))
        for other in scene.boxes
    )


# ---------------------------------------------------------------- outlines, in the unit circle


def _object_outline(rng: Generator, name: str) -> list[Contour]:
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


def _distractor_outline(rng: Generator, kind: str) -> list[Contour]:
    """Returns the contours of a shape that is no object, centred on 0 with radius about 1."""
    if kind == "outline":
        outer = _object_outline(rng, str(rng.choice(("disc", "box", "triangle", "star"))))[0]
        return [outer, 0.84 * outer]
    if kind == "gap":
        return [_open_ring(rng.uniform(0.35, 0.5), gap=math.radians(rng.uniform(70, 200)))]
    if kind == "polygon":
        return [_regular(int(rng.integers(5, 8)))]
    if kind == "points":
        num_points = int(rng.choice((3, 4, 7)))
        return [_star(num_points, 0.6 if num_points == 7 else rng.uniform(0.28, 0.4))]
    if kind == "arms":
        return [_cross(rng.uniform(0.26, 0.34), num_arms=int(rng.integers(2, 4)))]
    if kind == "half":
        return [_arc(1.0, 0, math.pi) - (0, 0.42)]
    if kind == "blob":
        return [_blob(rng)]
    return _object_outline(rng, str(rng.choice(("disc", "box", "triangle", "star"))))  # two-colour


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


def _pose(
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


def _even_odd_area(contours: list[Contour]) -> float:
    """Returns the area in square pixels of an outline less that of the hole inside it."""
    areas = [cv2.contourArea(contour.astype(np.float32)) for contour in contours]
    return areas[0] - sum(areas[1:])


def _clipped_xywh(contours: list[Contour], image_hw: tuple[int, int]) -> list[float]:
    """Returns the box of the whole shape, clipped to the image, rounded to 0.01 pixels."""
    height, width = image_hw
    x1, y1 = np.clip(contours[0].min(axis=0), 0, (width, height)).round(2)
    x2, y2 = np.clip(contours[0].max(axis=0), 0, (width, height)).round(2)
    return [float(x1), float(y1), round(float(x2 - x1), 2), round(float(y2 - y1), 2)]


def _area(xywh: list[float]) -> float:
    return xywh[2] * xywh[3]


def _overlap_xywh(a: list[float], b: list[float]) -> float:
    """Returns the area that two boxes share, in square pixels."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _iou_xywh(a: list[float], b: list[float]) -> float:
    overlap = _overlap_xywh(a, b)
    return overlap / max(_area(a) + _area(b) - overlap, 1e-9)


def _rle(mask: Mask) -> dict[str, Any]:
    """Returns COCO's uncompressed run lengths: column by column, zeros first."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    bounds = [0, *changes, flat.size]
    return {"counts": np.diff(bounds).tolist(), "size": list(mask.shape)}


# ---------------------------------------------------------------- painting


def _alpha_mask(contours: list[Contour], image_hw: tuple[int, int]) -> NDArray[np.uint8]:
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


def _paint(canvas: Image, layer: _Layer) -> None:
    """Paints a layer in place, slightly brighter on its side towards the light."""
    alpha = _alpha_mask(layer.contours, (canvas.shape[0], canvas.shape[1]))
    x, y, w, h = cv2.boundingRect(alpha)
    window = np.s_[y : y + h, x : x + w]
    along_light = _ramp(h, w, layer.light_angle)
    colour = np.broadcast_to(layer.colours[0], (h, w, 3))
    if len(layer.colours) == 2:
        near_side = _ramp(h, w, layer.split_angle) > 0
        colour = np.where(near_side[..., None], colour, layer.colours[1])
    lit = np.clip(colour * (1 + 0.16 * along_light[..., None]), 0, 255)
    weight = (alpha[window] / np.float32(255))[..., None]
    canvas[window] += weight * (lit.astype(np.float32) - canvas[window])


def _ramp(height: int, width: int, angle: float) -> Image:
    """Returns (height, width) values that run from about -1 to 1 along a direction."""
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return np.float32(math.cos(angle)) * xs + np.float32(math.sin(angle)) * ys


def _random_colour(
    rng: Generator,
    saturation: tuple[float, float] = (0.5, 1.0),
    hues: tuple[float, float] = (0.0, 360.0),
) -> Colour:
    hue = rng.uniform(*hues) % 360
    hsv = np.array([[[hue, rng.uniform(*saturation), rng.uniform(0.35, 1.0)]]], np.float32)
    return 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float64)


def _contrasting_colour(
    rng: Generator,
    other: NDArray[Any],
    minimum: float = 90.0,
    hues: tuple[float, float] = (0.0, 360.0),
) -> Colour:
    """Returns a random colour at least ``minimum`` away, or the farthest of a dozen."""
    colours = []
    for _ in range(12):
        colours.append(_random_colour(rng, hues=hues))
        if np.linalg.norm(colours[-1] - other) >= minimum:
            return colours[-1]
    return max(colours, key=lambda colour: float(np.linalg.norm(colour - other)))


def _draw_background(rng: Generator, height: int, width: int) -> Image:
    """Returns a gradient under a texture and some lines, of low or high contrast."""
    first, second = (_random_colour(rng, saturation=(0.0, 0.35)) for _ in range(2))
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
        colour, thickness = _random_colour(rng).tolist(), int(rng.integers(1, 4))
        cv2.line(canvas, start, stop, colour, thickness)


def _expose(rng: Generator, canvas: Image) -> NDArray[np.uint8]:
    """Returns the finished image: a little blur or none, sensor noise, 8 bits."""
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (3, 3), rng.uniform(0.4, 0.9))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas = canvas + np.float32(rng.uniform(0, 9)) * noise
    return np.rint(canvas).clip(0, 255).astype(np.uint8)
