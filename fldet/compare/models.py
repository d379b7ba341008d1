"""The small models that are compared, each made to fit a data set."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config

from fldet.analysis.init import init_config
from fldet.anchors.boxes import collect_boxes
from fldet.anchors.priors import cluster_sizes
from fldet.config.load import load_config
from fldet.config.text import config_text, words
from fldet.errors import DataError, UsageError, nearest
from fldet.files import write_atomically

DATA = "data.py"  # the config of the data, with the small RetinaNet

_SSD_STEP = 16  # the side of SSD's images is a multiple: stride of the last map of its backbone
_SMALLEST_SSD = 64  # pixels of that side
_RETINANET_SIZE = 24  # smallest anchor of the small RetinaNet where none are fitted
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")

Changes = dict[str, Any]  # top-level values of a config


@dataclass(frozen=True)
class Data:
    """What the models are fitted to."""

    cfg: Config  # the small RetinaNet on this data, as ``fldet init`` writes it
    scale: tuple[int, int]  # longer and shorter side of the images in training, in pixels
    sizes: npt.NDArray[np.float64]  # (N, 2) widths and heights of the training boxes, at that scale


@dataclass(frozen=True)
class SmallModel:
    """A model that can be compared."""

    title: str
    words: str  # what it is, for the page
    config: str  # a small version on Shapes, whose model is taken
    fit: Callable[[Any, Data], Changes]  # returns the changes of the data's config for this model


def write_models(names: tuple[str, ...], data: Path, size: Any, folder: Path) -> dict[str, Path]:
    """Returns the configs of small models on a data set by name; those that are there stay.

    Args:
        names: of ``MODELS``.
        data: a data set, as ``init_config`` takes it.
        size: longer and shorter side of the images; None as ``init_config`` chooses for ``small``.
        folder: of the configs, made if it is not there.

    Raises:
        UsageError: an unknown name.
        DataError: the data set is not recognised, or has no images to train or to validate on.
    """
    for name in names:
        if name not in MODELS:
            raise UsageError(
                f"unknown model {name!r}",
                expected=nearest(name, MODELS) or f"one of: {', '.join(MODELS)}",
                hint="a model of your own: name its config, fldet compare CONFIG.py",
            )
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.py" for name in names}
    if missing := [name for name, path in paths.items() if not path.exists()]:
        found = _read_data(data, size, folder / DATA)
        for name in missing:
            write_atomically(paths[name], _text(MODELS[name], found, data))
    return paths


def _read_data(data: Path, size: tuple[int, int] | None, config: Path) -> Data:
    if not config.exists():
        init_config(data, config, model="small", size=size)
    cfg = load_config(config, {"augment": "none"})
    if not cfg.get("val_dataloader"):
        raise DataError(
            f"{data} has no images to validate on",
            expected="a split called 'val' or 'test'",
            hint=f"fldet data inspect {data}",
        )
    boxes = collect_boxes(cfg).boxes
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    return Data(cfg, tuple(cfg.test_pipeline[1]["scale"]), sizes)


def _text(model: SmallModel, data: Data, path: Path) -> str:
    # the steps of ``augment`` fit not all models, and all are to see the same images
    changes = {"augment": "none", **model.fit(load_config(model.config).model, data)}
    if "model" in changes:
        changes["model"] = {"_delete_": True, **changes["model"]}
    head = f'"""{model.title}, small, for {words(path.name)}: {model.words}\n\n'
    return f'{head}Written by fldet compare.\n"""\n_base_ = \'./{DATA}\'\n{config_text(changes)}'


# --- fitting -------------------------------------------------------------------------------------


def _as_it_is(model: Any, data: Data) -> Changes:
    del model, data
    return {}


def _fit_faster_rcnn(model: Any, data: Data) -> Changes:
    """Scales the anchors as those of the RetinaNet were."""
    sizes = data.cfg.model.bbox_head.anchor_generator.sizes
    generator = model.rpn_head.anchor_generator
    generator.sizes = [size * sizes[0] / _RETINANET_SIZE for size in generator.sizes]
    return {"model": model.to_dict()}


def _fit_yolov2(model: Any, data: Data) -> Changes:
    """Takes the priors from the boxes."""
    head = model.bbox_head
    stride = head.get("stride", 32)
    priors = cluster_sizes(data.sizes, len(head.priors)) / stride
    head.priors = [(round(w, 3) or 0.001, round(h, 3) or 0.001) for w, h in priors.tolist()]
    return {"model": model.to_dict()}


def _fit_ssd(model: Any, data: Data) -> Changes:
    """Warps images to a square of as many pixels; maps down to one cell, SSD's default boxes."""
    side = _SSD_STEP * round(math.sqrt(data.scale[0] * data.scale[1]) / _SSD_STEP)
    side = max(side, _SMALLEST_SSD)
    blocks = ssd_blocks(side // _SSD_STEP)
    cells = [side // 8, *(before for before, _, _ in blocks), 1]
    small, large = default_box_sizes(side, len(cells))
    neck, head = model.neck, model.bbox_head
    neck.kernel_sizes = tuple(kernel for _, kernel, _ in blocks)
    neck.strides = tuple(stride for _, _, stride in blocks)
    neck.widths = (neck.widths[0],) * len(cells)
    head.in_channels = (head.in_channels[0],) * len(cells)
    head.kernel_sizes = (5, 5, *[3] * (len(cells) - 2))
    head.anchor_generator.update(
        strides=[round(side / count) for count in cells],
        min_sizes=small,
        max_sizes=large,
        ratios=[head.anchor_generator.ratios[0]] * len(cells),
    )
    loaders = {
        name: {"dataset": {"pipeline": _warped(data.cfg[name].dataset.pipeline, side)}}
        for name in _LOADERS
        if data.cfg.get(name)
    }
    return {"model": model.to_dict(), **loaders}


def ssd_blocks(cells: int) -> list[tuple[int, int, int]]:
    """Returns (cells before it, kernel, stride) of the blocks from a map of SSD down to one cell.

    A block halves an even map with a kernel of 2; of an odd one 5 and 3 lose the border of a kernel
    of 3, as in SSD321, and larger ones are halved with it.

    Args:
        cells: side of the backbone's last map, at least 2.
    """
    blocks = []
    while cells > 1:
        kernel = 2 + cells % 2
        stride = 1 if cells in (3, 5) else 2
        blocks.append((cells, kernel, stride))
        cells = (cells - kernel) // stride + 1
    return blocks


def default_box_sizes(side: int, maps: int) -> tuple[list[int], list[int]]:
    """Returns ``min_sizes`` and ``max_sizes`` of SSD's default boxes, in whole pixels.

    The first map has a tenth of the image, the others go from 0.2 to 0.95 of it in even steps
    (Liu et al. 2016, Sec. 2.2 and 3.1; DSSD's configs).

    Args:
        side: of the image, in pixels.
        maps: how many, at least 3.
    """
    shares = [0.1, *np.linspace(0.2, 0.95, maps - 1)]
    shares.append(2 * shares[-1] - shares[-2])
    sizes = [round(side * share) for share in shares]
    return sizes[:-1], sizes[1:]


def _warped(pipeline: Any, side: int) -> list[Mapping[str, Any]]:
    """Returns a pipeline that resizes images to a square, whatever their shape."""
    square = {"scale": (side, side), "keep_ratio": False}
    steps = [step.to_dict() for step in pipeline]
    return [{**step, **square} if step["type"] == "Resize" else step for step in steps]


MODELS: dict[str, SmallModel] = {
    "retinanet": SmallModel(
        "RetinaNet",
        "ResNet-18 of half width, FPN, focal loss; anchors fitted to the boxes where that helps.",
        "fldet::shapes/retinanet_r18_shapes.py",
        _as_it_is,
    ),
    "ssd": SmallModel(
        "SSD",
        "ResNet-18 of half width, no pyramid; images warped to a square of as many pixels, default "
        "boxes as shares of it.",
        "fldet::systems/shapes/ssd_r18.py",
        _fit_ssd,
    ),
    "yolov2": SmallModel(
        "YOLOv2",
        "DarkNet-19 of half width, one map; priors are five clusters of the training boxes.",
        "fldet::systems/shapes/yolov2_small.py",
        _fit_yolov2,
    ),
    "faster_rcnn": SmallModel(
        "Faster R-CNN FPN",
        "ResNet-18 of half width, FPN, two stages; anchors scaled as those of RetinaNet.",
        "fldet::systems/shapes/faster_rcnn_r18_fpn.py",
        _fit_faster_rcnn,
    ),
}
