"""Sizes of images and boxes after a pipeline, without reading a pixel."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mmcv
import numpy as np
import numpy.typing as npt
from mmcv.transforms import RandomChoiceResize, RandomResize
from mmcv.transforms import Resize as MMCVResize
from mmdet.datasets.transforms import FilterAnnotations, FixScaleResize
from mmdet.datasets.transforms.transforms import rescale_size as floored_size
from mmengine.config import Config

from fldet.data.transforms import RandomCrop

log = logging.getLogger("fldet")

Floats = npt.NDArray[np.float32]
_ENLARGING = ("Expand", "Mosaic", "Pad")  # in names of steps whose effect on sizes is not known


def largest_input(cfg: Config, dataset: Any) -> tuple[tuple[int, int], int]:
    """Returns (height, width) of the largest batch of a training, and the most boxes of an image.

    Each random resizing at its largest. Where batches are not sorted by shape, wide and high images
    may meet in one.
    """
    transforms = _transforms(dataset)
    names = [type(one).__name__ for one in transforms]
    enlarging = [name for name in names if any(word in name for word in _ENLARGING)]
    if enlarging:
        log.warning("the size of a batch is guessed without %s", ", ".join(enlarging))
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    sizes = []
    for width, height in {(info["width"], info["height"]) for info in infos}:
        size = width, height
        for transform in transforms:
            if isinstance(transform, RandomCrop):
                size = transform.size_after(size)
            elif _is_resize(transform):
                size = _size_after(size, transform, _largest_scale)
        sizes.append(size)
    groups = [sizes]
    if "AspectRatio" in str((cfg.train_dataloader.get("batch_sampler") or {}).get("type")):
        groups = [[s for s in sizes if s[0] >= s[1]], [s for s in sizes if s[0] < s[1]]]
    shapes = [(max(h for _, h in group), max(w for w, _ in group)) for group in groups if group]
    boxes = max(len(info["instances"]) for info in infos)
    return max(shapes, key=lambda shape: shape[0] * shape[1]), boxes


def padded(sizes_wh: npt.NDArray[np.int64], divisor: int) -> npt.NDArray[np.int64]:
    """Returns widths and heights rounded up to multiples of ``divisor``."""
    return -(-sizes_wh // divisor) * divisor


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds NumPy's and Python's global generators, and puts them back at the end."""
    import random

    states = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _transforms(dataset: Any) -> list[Any]:
    """Returns the steps of a data set's pipeline; of several data sets, those of the first."""
    while not hasattr(dataset, "pipeline"):
        dataset = dataset.dataset if hasattr(dataset, "dataset") else dataset.datasets[0]
    return list(getattr(dataset.pipeline, "transforms", dataset.pipeline))


def _is_resize(transform: Any) -> bool:
    return isinstance(transform, (MMCVResize, RandomResize, RandomChoiceResize))


def _moves_boxes(transform: Any) -> bool:
    """Returns whether ``_boxes_of`` knows what a step does to sizes and boxes."""
    if isinstance(transform, FilterAnnotations):
        return bool(transform.by_box)
    return _is_resize(transform) or isinstance(transform, RandomCrop)


def _boxes_of(
    image: Mapping[str, Any], transforms: Sequence[Any]
) -> tuple[Floats, Floats, tuple[int, int]]:
    """Returns an image's boxes in the network's pixels, their areas in the file's, and its size.

    ``transforms`` are the steps that change them, see ``_moves_boxes``; areas are of whole boxes.
    """
    size = image["width"], image["height"]
    instances = [one["bbox"] for one in image["instances"] if not one["ignore_flag"]]
    boxes: Floats = np.array(instances, np.float32).reshape(-1, 4)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for transform in transforms:
        if _is_resize(transform):
            boxes, size = _resize(boxes, size, transform)
            continue
        if isinstance(transform, RandomCrop):
            boxes, size = _crop(boxes, size, transform)
            smallest = (0.0, 0.0)  # what is outside has no width or height now
        else:
            smallest = transform.min_gt_bbox_wh
        kept = (boxes[:, 2:] - boxes[:, :2] > np.array(smallest, np.float32)).all(axis=1)
        boxes, areas = boxes[kept], areas[kept]
    return boxes, areas, size


def _crop(boxes: Floats, size: tuple[int, int], crop: RandomCrop) -> tuple[Floats, tuple[int, int]]:
    """Returns boxes and image size (width, height) after a random crop."""
    left = crop.size_after(size)
    if left == size:
        return boxes, size
    corner = np.array(crop.draw_corner(size, boxes), np.float32)
    limits = np.tile(np.array(left, np.float32), 2)
    return (boxes - np.tile(corner, 2)).clip(0, limits), left


def _resize(boxes: Floats, size: tuple[int, int], transform: Any) -> tuple[Floats, tuple[int, int]]:
    """Returns boxes and image size (width, height) after one transform, as it would make them."""
    resize = getattr(transform, "resize", transform)
    new = _size_after(size, transform, _told_scale)
    boxes = boxes * np.tile(np.array([new[0] / size[0], new[1] / size[1]], np.float32), 2)
    if resize.clip_object_border:
        boxes = boxes.clip(0, np.tile(np.array(new, np.float32), 2))
    return boxes, (int(new[0]), int(new[1]))


def _size_after(
    size: tuple[int, int],
    transform: Any,
    scale_of: Callable[[Any, tuple[int, int]], tuple[int, int]],
) -> tuple[int, int]:
    """Returns the image size (width, height) after a transform."""
    resize, scale = getattr(transform, "resize", transform), scale_of(transform, size)
    if not resize.keep_ratio:
        new = scale
    elif isinstance(resize, FixScaleResize):
        new = floored_size(size, scale)
    else:
        new = mmcv.rescale_size(size, scale)
    return max(1, int(new[0])), max(1, int(new[1]))


def _told_scale(transform: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (width, height) that a resizing is told; random ones draw theirs."""
    if isinstance(transform, RandomResize):
        scale = transform._random_scale()
    elif isinstance(transform, RandomChoiceResize):
        scale = transform._random_select()[0]
    elif transform.scale:
        scale = transform.scale
    else:
        scale = [int(side * f + 0.5) for side, f in zip(size, transform.scale_factor, strict=True)]
    return int(scale[0]), int(scale[1])


def _largest_scale(transform: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest (width, height) that a resizing may be told."""
    if isinstance(transform, RandomChoiceResize):
        return max(transform.scales, key=lambda scale: int(np.prod(scale)))
    if isinstance(transform, RandomResize):
        scales = np.sort(np.reshape(transform.scale, (-1, 2)), axis=1).max(axis=0)
        times = max(transform.ratio_range) if transform.ratio_range else 1.0
        return int(scales[1] * times), int(scales[0] * times)
    return _told_scale(transform, size)
