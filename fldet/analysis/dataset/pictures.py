"""Two pictures of a data set: its counts as a figure, and some of its images with their boxes."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fldet.analysis.dataset.summary import (
    MEDIUM,
    SMALL,
    DatasetSummary,
    Histogram,
    id_order,
    most_first,
    try_to_read,
)
from fldet.anchors.cover import SeenImage
from fldet.data.annotations import box_of, flag_of, id_of, is_usable
from fldet.errors import DataError
from fldet.files import write_atomically
from fldet.pictures.boxes import Image, add_title, draw_boxes, draw_tagged_boxes, xyxy
from fldet.pictures.figure import BLUE, PLAIN, VERMILION, figure, label, save, shortened
from fldet.text import middle_cut

_CELL = 480  # longer side of a picture in the contact sheet, in pixels
_COVER_CELL = 640  # the same where small boxes matter
_SKY_BLUE, _BLUE, _VERMILION = 1, 4, 5  # places in PALETTE


def plot_summary(summary: DatasetSummary, path: Path) -> Path:
    """Draws boxes per class, sizes, boxes per image and aspect ratios; returns ``path`` (PNG)."""
    with figure(14, 9, PLAIN | {"font.size": 14}) as drawn:
        grid = drawn.add_gridspec(3, 2, width_ratios=(1, 1.15))
        drawn.suptitle(
            f"{label(summary.name)}: {summary.images} images, {summary.boxes} boxes, "
            f"{summary.crowd_regions} crowd regions"
        )
        _plot_classes(drawn.add_subplot(grid[:, 0]), summary)
        _plot_sizes(drawn.add_subplot(grid[0, 1]), summary)
        _plot_boxes_per_image(drawn.add_subplot(grid[1, 1]), summary)
        _plot_aspect_ratios(drawn.add_subplot(grid[2, 1]), summary)
        return save(drawn, path.with_suffix(""), ["png"])[0]


def _plot_classes(axes: Any, summary: DatasetSummary) -> None:
    """Draws a bar for each class, most first; of many classes the first 20 and the last 10."""
    rows: list[tuple[str, int | None]] = [*most_first(summary.boxes_per_class)]
    if len(rows) > 31:
        rows = [*rows[:20], (f"... {len(rows) - 30} more ...", None), *rows[-10:]]
    counts = [count or 0 for _, count in rows]
    axes.barh(range(len(rows)), counts, color=BLUE)
    axes.set_yticks(range(len(rows)), [label(shortened(name, 24)) for name, _ in rows])
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    present = [count for count in counts if count]
    if present and max(present) > 20 * min(present):
        axes.set_xscale("log")
        axes.set_xlim(0.7, max(present) * 2.5)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("boxes, logarithmic")
    else:
        axes.set_xlim(0, max([5, *present]) * 1.15)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("boxes")
    left = axes.get_xlim()[0]
    for row, (_, count) in enumerate(rows):
        if count is not None:
            axes.text(max(count, left), row, f" {count}", va="center", fontsize=12)
    axes.set_title(f"{len(summary.boxes_per_class)} classes")


def _plot_sizes(axes: Any, summary: DatasetSummary) -> None:
    _bars(axes, summary.histograms["sqrt_area"], log=True)
    axes.set(xlabel="square root of the area of an object [pixels]", ylabel="boxes")
    if summary.boxes:
        for side in (SMALL, MEDIUM):
            axes.axvline(side, color=VERMILION, linewidth=2)
        low, high = axes.get_xlim()
        middles = (low * SMALL) ** 0.5, (SMALL * MEDIUM) ** 0.5, (MEDIUM * high) ** 0.5
        for middle, (name, count) in zip(middles, summary.boxes_per_size.items(), strict=True):
            place = {"ha": "center", "va": "bottom", "fontsize": 13, "color": VERMILION}
            axes.text(middle, 1.0, f"{name} {count}", transform=axes.get_xaxis_transform(), **place)


def _plot_boxes_per_image(axes: Any, summary: DatasetSummary) -> None:
    _bars(axes, summary.histograms["boxes_per_image"])
    axes.set(xlabel="boxes in an image", ylabel="images")


def _plot_aspect_ratios(axes: Any, summary: DatasetSummary) -> None:
    _bars(axes, summary.histograms["aspect_ratio"], log=True)
    axes.set(xlabel="width / height of a box", ylabel="boxes")
    if summary.boxes:
        axes.axvline(1, color=VERMILION, linewidth=2)


def _bars(axes: Any, histogram: Histogram, *, log: bool = False) -> None:
    """Draws a histogram, on a logarithmic axis with plain numbers at powers of two."""
    if not histogram.counts:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=BLUE)
    axes.set_xlim(histogram.edges[0], histogram.edges[-1])
    axes.yaxis.get_major_locator().set_params(integer=True)
    if log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
        )


def contact_sheet(
    content: Mapping[str, Any], image_dir: Path, path: Path, *, count: int = 16, seed: int = 0
) -> Path:
    """Draws random images of a COCO file with their boxes; returns ``path`` (JPEG or PNG).

    At most ``count`` images; those that cannot be read are passed over.

    Raises:
        DataError: no image can be read.
    """
    categories = sorted(content["categories"], key=lambda one: id_order(one["id"]))
    names = [str(one["name"]) for one in categories]
    label_of = {one["id"]: label for label, one in enumerate(categories)}
    entries = defaultdict(list)
    for entry in content["annotations"]:
        if box_of(entry) is not None:
            entries[id_of(entry.get("image_id"))].append(entry)
    cells: list[Image] = []
    for image in random.Random(seed).sample(content["images"], len(content["images"])):
        if len(cells) == count:
            break
        picture = try_to_read(image, image_dir)
        if picture is not None:
            height, width = picture.shape[:2]
            shown = [
                entry
                for entry in entries[image["id"]]
                if (box := box_of(entry)) and is_usable(box, width, height)
            ]
            cells.append(_cell(picture, image["file_name"], shown, names, label_of))
    if not cells:
        raise DataError(
            f"no image of the data can be read in {image_dir}",
            expected="the folder that 'file_name' is relative to",
        )
    return _write_sheet(cells, path)


def cover_sheet(
    images: Sequence[SeenImage], class_names: Sequence[str], pos_iou_thr: float, path: Path
) -> Path:
    """Draws images, at least one, as the network sees them; returns ``path`` (JPEG or PNG).

    Boxes are blue where an anchor has an IoU of at least ``pos_iou_thr``, else orange-red and on
    top, with the IoU of their best anchor; crowd regions are sky blue.
    """
    title = f"blue: an anchor has IoU >= {pos_iou_thr:g}; orange-red: none (its best IoU)"
    cells = [_cover_cell(image, class_names, pos_iou_thr) for image in images]
    return _write_sheet(cells, path, title)


def _write_sheet(cells: Sequence[Image], path: Path, title: str = "") -> Path:
    sheet = add_title(_grid(cells), title) if title else _grid(cells)
    return write_atomically(path, cv2.imencode(path.suffix or ".jpg", sheet)[1].tobytes())


def _cover_cell(image: SeenImage, class_names: Sequence[str], pos_iou_thr: float) -> Image:
    small, factor = _fit(image.image, _COVER_CELL)
    poor = ~image.crowd & (image.best_iou < pos_iou_thr)
    order = np.argsort(~poor, kind="stable")  # the first are drawn on top
    kinds = np.where(poor, _VERMILION, np.where(image.crowd, _SKY_BLUE, _BLUE))
    tags = [
        class_names[image.labels[row]] + (f" {image.best_iou[row]:.2f}" if poor[row] else "")
        for row in order
    ]
    boxes, crowd = image.boxes[order] * factor, image.crowd[order]
    return add_title(
        draw_tagged_boxes(small, boxes, tags, kinds[order], crowd), middle_cut(image.name)
    )


def _fit(picture: Image, side: int = _CELL) -> tuple[Image, float]:
    """Returns an image with a longer side of ``side`` pixels, and the factor."""
    factor = side / max(picture.shape[:2])
    height, width = (max(1, round(length * factor)) for length in picture.shape[:2])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8), factor


def _cell(
    picture: Image,
    title: str,
    entries: Iterable[Mapping[str, Any]],
    names: Sequence[str],
    label_of: Mapping[Any, int],
) -> Image:
    """Returns an image with its boxes under its name; its longer side is that of a cell."""
    small, factor = _fit(picture)
    drawn = draw_boxes(
        small,
        xyxy([entry["bbox"] for entry in entries]) * factor,
        [label_of.get(id_of(entry.get("category_id")), -1) for entry in entries],
        names,
        crowd=[bool(flag_of(entry.get("iscrowd"))) for entry in entries],
    )
    return add_title(drawn, middle_cut(Path(title).name))


def _grid(cells: Sequence[Image]) -> Image:
    """Returns the cells in a grid on light grey, about as many columns as rows."""
    columns = math.ceil(math.sqrt(len(cells)))
    width = max(cell.shape[1] for cell in cells) + 10
    rows = []
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        height = max(cell.shape[0] for cell in row) + 10
        strip = np.full((height, width * columns, 3), 225, np.uint8)
        for column, cell in enumerate(row):
            strip[: cell.shape[0], column * width : column * width + cell.shape[1]] = cell
        rows.append(strip)
    return np.concatenate(rows)
