"""Times of several configs, each on an image of the size that it tests at."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.benchmark.predict import benchmark
from fldet.benchmark.results import SpeedRow, SpeedsSideBySide
from fldet.benchmark.summary import check_against
from fldet.checkpoints.stored_config import find_pipeline
from fldet.config.load import load_config
from fldet.devices import select_device
from fldet.errors import ConfigError, FldetError, UsageError
from fldet.registry import TRANSFORMS

_FILE = (480, 640)  # height and width of the most frequent image of COCO


def speeds_side_by_side(
    configs: Sequence[str],
    *,
    cfg_options: Iterable[str] = (),
    on_row: Callable[[SpeedsSideBySide], None] | None = None,
    **options: Any,
) -> SpeedsSideBySide:
    """Times each config on a random image of the shape to which it resizes one of 480 x 640 pixels.

    The weights are random: few boxes pass the score threshold of a one-stage detector, whose
    post-processing is a lower bound, while an RPN passes all the proposals that it may. A config
    that fails is kept as such.

    Args:
        configs: as ``load_config`` takes them.
        cfg_options: overrides of all of them.
        on_row: gets the table so far after each config.
        **options: of ``benchmark``, for all: ``num_images``, ``device``, ``copy``, ``against``.

    Raises:
        UsageError: a config twice, or an option that none could use.
        UnavailableError: the device is not there, or lacks what an option needs.
    """
    if len(set(configs)) != len(configs):
        raise UsageError(f"configs {' '.join(configs)}", expected="each once")
    check_against(options.get("against"))
    device, copy = select_device(options.get("device", "auto")), options.get("copy")
    if copy:
        copy.require(device)
    found, overrides = SpeedsSideBySide(()), tuple(cfg_options)
    for config in configs:
        if copy and copy.compile:
            torch._dynamo.reset()  # it gives up compiling after some shapes
        found = replace(found, rows=(*found.rows, _time(config, overrides, options)))
        if on_row:
            on_row(found)
    return found


def resized_shape(cfg: Config) -> tuple[int, int]:
    """Returns the height and width to which a config resizes an image of 480 x 640 in its tests.

    Raises:
        ConfigError: it has no pipeline for test images.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    pipeline = find_pipeline(cfg)
    if not pipeline:
        raise ConfigError(f"{cfg.filename} has no pipeline for test images")
    results: Any = {"img": np.zeros((*_FILE, 3), np.uint8), "img_shape": _FILE}
    for step in pipeline:
        if str(step.get("type")).rpartition(".")[2] == "Resize":
            results = TRANSFORMS.build(step)(results)
    height, width = results["img_shape"][:2]
    return int(height), int(width)


def _time(config: str, cfg_options: tuple[str, ...], options: dict[str, Any]) -> SpeedRow:
    """Returns the times of a config, or why there are none."""
    name = Path(config).stem
    try:
        cfg = load_config(config, cfg_options)
        return SpeedRow(name, benchmark(cfg, shape=resized_shape(cfg), **options))
    except FldetError as error:
        return SpeedRow(name, None, error.message)
    except Exception as error:  # a lack of memory, or whatever a library raises for a model
        return SpeedRow(name, None, f"{type(error).__name__}: {error}")
