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

_CELL = 480  # height of a picture in the contact sheet, about, in pixels
_GAP = 10  # between pictures, in pixels
_SKY_BLUE, _BLUE, _VERMILION = 1, 4, 5  # places in PALETTE


def plot_summary(summary: DatasetSummary, path: Path, name: str = "") -> Path:
    """Draws boxes per class, sizes, boxes per image and aspect ratios; returns ``path`` (PNG).

    ``name`` of the data stands above, else the summary's.
    """
    with figure(14, 9, PLAIN | {"font.size": 14}) as drawn:
        grid = drawn.add_gridspec(3, 2, width_ratios=(1, 1.15))
        drawn.suptitle(
            f"{label(name or summary.name)}: {summary.images} images, {summary.boxes} boxes, "
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
    content: Mapping[str, Any],
    image_dir: Path,
    path: Path,
    *,
    name: str,
    count: int = 16,
    seed: int = 0,
) -> Path:
    """Draws random images of a COCO file with their boxes; returns ``path`` (JPEG or PNG).

    At most ``count`` images; those that cannot be read are passed over. ``name`` is of the data.

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
    chosen: list[tuple[Image, str, list[Any]]] = []
    for image in random.Random(seed).sample(content["images"], len(content["images"])):
        if len(chosen) == count:
            break
        picture = try_to_read(image, image_dir)
        if picture is not None:
            height, width = picture.shape[:2]
            shown = [
                entry
                for entry in entries[image["id"]]
                if (box := box_of(entry)) and is_usable(box, width, height)
            ]
            chosen.append((picture, image["file_name"], shown))
    if not chosen:
        raise DataError(
            f"no image of the data can be read in {image_dir}",
            expected="the folder that 'file_name' is relative to",
        )
    rows = _rows([picture for picture, _, _ in chosen], _CELL)
    cells = [_cell(*one, names, label_of, height=rows[i][1]) for i, one in enumerate(chosen)]
    title = f"{name}: {len(cells)} of {len(content['images'])} images"
    return _write_sheet(cells, rows, path, title)


def cover_sheet(
    images: Sequence[SeenImage],
    class_names: Sequence[str],
    pos_iou_thr: float,
    path: Path,
    *,
    name: str,
) -> Path:
    """Draws images, at least one, as the network sees them; returns ``path`` (JPEG or PNG).

    Boxes are blue where an anchor has an IoU of at least ``pos_iou_thr``, else orange-red and on
    top, with the IoU of their best anchor; crowd regions are sky blue.
    """
    title = f"{name}; blue: an anchor has IoU >= {pos_iou_thr:g}; orange-red: none (its best IoU)"
    rows = _rows([image.image for image in images], _CELL)
    cells = [
        _cover_cell(image, class_names, pos_iou_thr, height)
        for image, (_, height) in zip(images, rows, strict=True)
    ]
    return _write_sheet(cells, rows, path, title)


def _write_sheet(
    cells: Sequence[Image], rows: Sequence[tuple[int, int]], path: Path, title: str
) -> Path:
    grouped: dict[int, list[Image]] = {}
    for cell, (row, _) in zip(cells, rows, strict=True):
        grouped.setdefault(row, []).append(cell)
    width = max(sum(cell.shape[1] + _GAP for cell in row) for row in grouped.values())
    sheet = add_title(np.concatenate([_strip(row, width) for row in grouped.values()]), title)
    return write_atomically(path, cv2.imencode(path.suffix or ".jpg", sheet)[1].tobytes())


def _cover_cell(
    image: SeenImage, class_names: Sequence[str], pos_iou_thr: float, height: int
) -> Image:
    small, factor = _fit(image.image, height)
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


def _fit(picture: Image, height: int) -> tuple[Image, float]:
    """Returns an image of this height in pixels, and the factor."""
    factor = height / picture.shape[0]
    width = max(1, round(picture.shape[1] * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8), factor


def _cell(
    picture: Image,
    title: str,
    entries: Iterable[Mapping[str, Any]],
    names: Sequence[str],
    label_of: Mapping[Any, int],
    *,
    height: int,
) -> Image:
    """Returns an image of this height in pixels with its boxes, under its name."""
    small, factor = _fit(picture, height)
    drawn = draw_boxes(
        small,
        xyxy([entry["bbox"] for entry in entries]) * factor,
        [label_of.get(id_of(entry.get("category_id")), -1) for entry in entries],
        names,
        crowd=[bool(flag_of(entry.get("iscrowd"))) for entry in entries],
        smallest=1,
    )
    return add_title(drawn, middle_cut(Path(title).name))


def _rows(pictures: Sequence[Image], height: int) -> list[tuple[int, int]]:
    """Returns for each picture the number of its row and its height in pixels, about ``height``.

    There are about as many rows as pictures in a row, and a row is as wide as the others.
    """
    shapes = [picture.shape[1] / picture.shape[0] for picture in pictures]
    room = sum(shapes) / round(math.sqrt(len(shapes)))  # for the shapes of a row
    row_of, filled = [], 0.0
    for shape in shapes:
        row_of.append(int((filled + shape / 2) / room * (1 - 1e-9)))
        filled += shape
    sums = [
        sum(shape for shape, own in zip(shapes, row_of, strict=True) if own == row)
        for row in row_of
    ]
    counts = [row_of.count(row) for row in row_of]
    width = room * height + _GAP * math.sqrt(len(shapes))
    return [
        (row, max(1, round((width - _GAP * count) / total)))
        for row, count, total in zip(row_of, counts, sums, strict=True)
    ]


def _strip(row: Sequence[Image], width: int) -> Image:
    strip = np.full((max(cell.shape[0] for cell in row) + _GAP, width, 3), 225, np.uint8)
    left = 0
    for cell in row:
        strip[: cell.shape[0], left : left + cell.shape[1]] = cell
        left += cell.shape[1] + _GAP
    return strip
