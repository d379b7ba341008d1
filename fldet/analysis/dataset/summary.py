"""What is in a data set of the COCO format: counts, sizes, shapes, oddities, and pictures of it."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fldet.data.annotations import (
    annotation_faults,
    area_of,
    flag_of,
    has_image,
    image_path,
    stated_size,
)
from fldet.errors import DataError
from fldet.pictures.boxes import Image, read_image

QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1}
SMALL, MEDIUM = 32, 96  # sides of the squares that part COCO's sizes, in pixels

_MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Histogram:
    """Counts between edges: N + 1 ``edges`` for N ``counts``, none where there are no data."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Oddity:
    """An entry that is probably wrong."""

    kind: str  # what is wrong with it
    annotation_id: Any  # None where the image is meant
    image_id: Any  # of the annotation, or the image itself
    bbox: Any = None  # as it stands in the file, [x, y, width, height] in pixels; None for an image


@dataclass(frozen=True)
class DatasetSummary:
    """Counts of a data set. Boxes that cannot be used are in none but ``suspicious``."""

    name: str  # of the annotation file
    images: int  # those listed
    images_without_objects: int  # images with neither a box nor a crowd region
    boxes: int  # objects, crowd regions not counted
    crowd_regions: int  # entries with ``iscrowd``
    # boxes by class name, in the order of the category ids; 0 included
    boxes_per_class: dict[str, int]
    # boxes by COCO's size: small (area < 32 x 32 pixels), medium (< 96 x 96), large; ``area`` as
    # the file gives it, else width x height
    boxes_per_size: dict[str, int]
    aspect_ratio: dict[str, float]  # quantiles of width / height of a box; NaN without boxes
    boxes_per_image: dict[str, float]  # quantiles of the boxes of an image; NaN without images
    image_width: tuple[int, int] | None  # (smallest, largest) in pixels; None if unknown
    image_height: tuple[int, int] | None  # the same
    suspicious: dict[str, int]  # number of entries by what is wrong with them; empty if nothing is
    examples: tuple[Oddity, ...]  # the first 20 of them
    # ``sqrt_area`` and ``aspect_ratio`` of boxes, ``boxes_per_image``
    histograms: dict[str, Histogram]

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in most_first(self.boxes_per_class))
        lines = {
            "file": self.name,
            "images": f"{self.images}, {self.images_without_objects} without objects",
            "image size": f"width {_range(self.image_width)}, height {_range(self.image_height)}",
            "boxes": f"{self.boxes}, and {self.crowd_regions} crowd regions",
            "sizes": ", ".join(f"{name} {count}" for name, count in self.boxes_per_size.items()),
            "width / height": _quantile_text(self.aspect_ratio, "{:.2f}"),
            "boxes per image": _quantile_text(self.boxes_per_image, "{:.0f}"),
            f"{len(self.boxes_per_class)} classes": classes or "none",
            "suspicious": _suspicious_text(self),
        }
        return "\n".join(
            textwrap.fill(text, 100, initial_indent=f"{key:16}", subsequent_indent=" " * 16)
            for key, text in lines.items()
        )


# --- compute -------------------------------------------------------------------------------------


def summarize_content(
    content: Mapping[str, Any], name: str, image_dir: Path | None = None
) -> DatasetSummary:
    """Returns what is in the content of a COCO file; one without annotations is fine.

    ``area``, ``iscrowd``, ``width`` and ``height`` may be missing; the size of such an image is
    read from its file in ``image_dir``. None looks at no image.
    """
    sizes = {image["id"]: _image_size(image, image_dir) for image in content["images"]}
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    odd = _odd_images(content["images"], image_dir)
    usable = []
    for entry in content["annotations"]:
        fault = next(annotation_faults(entry, sizes, names), None)
        kind = fault.kind if fault else ""
        if kind:
            odd.append(Oddity(kind, entry.get("id"), entry.get("image_id"), entry.get("bbox")))
        if kind in _USABLE:
            usable.append(entry)
    return _summarize(name, sizes, names, usable, odd)


_USABLE = (
    "",
    "box partly outside the image",
    "box thinner than a pixel",
    "area that is no size",
)


def _odd_images(images: Sequence[Mapping[str, Any]], image_dir: Path | None) -> list[Oddity]:
    counts = Counter(image["id"] for image in images)
    odd = [Oddity("image id given twice", None, key) for key, count in counts.items() if count > 1]
    for image in images:
        if "file_name" not in image:
            odd.append(Oddity("image without file_name", None, image["id"]))
        elif image_dir is not None and not has_image(image_dir, image["file_name"]):
            odd.append(Oddity("image file missing", None, image["id"]))
    return odd


def try_to_read(image: Mapping[str, Any], image_dir: Path) -> Image | None:
    """Returns the image of an entry as (H, W, 3) uint8 BGR, None if it cannot be read."""
    try:
        return read_image(image_path(image_dir, image["file_name"], "image"))
    except (DataError, KeyError):
        return None


def _image_size(image: Mapping[str, Any], image_dir: Path | None) -> tuple[int, int] | None:
    """Returns (width, height) in pixels from the entry, else from the file, else None."""
    if size := stated_size(image):
        return size
    picture = None if image_dir is None else try_to_read(image, image_dir)
    return None if picture is None else (picture.shape[1], picture.shape[0])


def _summarize(
    name: str,
    sizes: Mapping[Any, tuple[int, int] | None],
    names: Mapping[Any, str],
    usable: Sequence[Mapping[str, Any]],
    odd: Sequence[Oddity],
) -> DatasetSummary:
    boxes = [entry for entry in usable if not flag_of(entry.get("iscrowd"))]
    per_image, per_class = (
        Counter(entry[key] for entry in boxes) for key in ("image_id", "category_id")
    )
    with_objects = {entry["image_id"] for entry in usable}
    per_image_counts = np.array([per_image[key] for key in sizes], float)
    sides = np.sqrt([_area(entry) for entry in boxes])
    ratios = np.array([entry["bbox"][2] / entry["bbox"][3] for entry in boxes], float)
    known = [size for size in sizes.values() if size is not None]
    return DatasetSummary(
        name=name,
        images=len(sizes),
        images_without_objects=len(sizes) - len(with_objects),
        boxes=len(boxes),
        crowd_regions=len(usable) - len(boxes),
        boxes_per_class={names[key]: per_class[key] for key in sorted(names, key=id_order)},
        boxes_per_size=_size_counts(sides),
        aspect_ratio=_quantiles(ratios),
        boxes_per_image=_quantiles(per_image_counts),
        image_width=(min(w for w, _ in known), max(w for w, _ in known)) if known else None,
        image_height=(min(h for _, h in known), max(h for _, h in known)) if known else None,
        suspicious=dict(Counter(one.kind for one in odd).most_common()),
        examples=tuple(odd[:_MAX_EXAMPLES]),
        histograms={
            "sqrt_area": _log_histogram(sides, anchor=SMALL, ratio=3 ** (1 / 6), reach=8),
            "aspect_ratio": _log_histogram(ratios, anchor=1, ratio=2 ** (1 / 4), reach=8),
            "boxes_per_image": _count_histogram(per_image_counts),
        },
    )


def id_order(key: Any) -> tuple[bool, Any]:
    """Sorts numbers by value, then names."""
    return isinstance(key, str), key


def _area(entry: Mapping[str, Any]) -> float:
    """Returns the area in square pixels: of the mask, as COCO has it, else of the box."""
    area = entry.get("area")
    if area is not None and (stated := area_of(entry, None)) is not None:
        return stated
    return float(entry["bbox"][2] * entry["bbox"][3])


def _size_counts(sides: npt.NDArray[np.float64]) -> dict[str, int]:
    small, up_to_medium = int((sides < SMALL).sum()), int((sides < MEDIUM).sum())
    return {"small": small, "medium": up_to_medium - small, "large": len(sides) - up_to_medium}


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(QUANTILES, math.nan)
    return {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}


def _log_histogram(
    values: npt.NDArray[np.float64], *, anchor: float, ratio: float, reach: int
) -> Histogram:
    """Returns bins whose edges are ``anchor * ratio ** k``, at least ``reach`` on both sides.

    Values that are not positive are left out.
    """
    values = values[values > 0]
    if not len(values):
        return Histogram()
    steps = np.log(values / anchor) / math.log(ratio)
    low, high = min(math.floor(steps.min()), -reach), max(math.floor(steps.max()) + 1, reach)
    counts = np.bincount(np.floor(steps + 1e-9).astype(int) - low, minlength=high - low)
    edges = (anchor * ratio ** np.arange(low, low + len(counts) + 1)).tolist()
    return Histogram(tuple(edges), tuple(counts.tolist()))


def _count_histogram(values: npt.NDArray[np.float64]) -> Histogram:
    """Returns at most 40 bins of whole numbers, their edges halfway between."""
    if not len(values):
        return Histogram()
    top = max(values.max(), 5)
    step = math.ceil((top + 1) / 40)
    edges = np.arange(0, top + 1 + step, step) - 0.5
    counts, _ = np.histogram(values, edges)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


# --- text ----------------------------------------------------------------------------------------


def most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Returns (name, count) pairs, the largest count first."""
    return sorted(counts.items(), key=lambda item: -item[1])


def _range(limits: tuple[int, int] | None) -> str:
    if limits is None:
        return "unknown"
    return f"{limits[0]}" if limits[0] == limits[1] else f"{limits[0]} to {limits[1]}"


def _quantile_text(quantiles: Mapping[str, float], form: str) -> str:
    if any(map(math.isnan, quantiles.values())):
        return "none"
    return ", ".join(f"{name} {form.format(value)}" for name, value in quantiles.items())


def _suspicious_text(summary: DatasetSummary) -> str:
    if not summary.suspicious:
        return "nothing"
    counts = ", ".join(f"{kind}: {count}" for kind, count in summary.suspicious.items())
    first = summary.examples[0]
    where = f"image {first.image_id!r}"
    if first.annotation_id is not None:
        where = f"annotation {first.annotation_id!r} of {where}"
    return f"{counts}; first {where}"
