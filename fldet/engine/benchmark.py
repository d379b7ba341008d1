"""Measuring how fast the model of a config is."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from fldet.engine.build import build_model
from fldet.engine.checkpoint import (
    checkpoint_classes,
    load_weights,
    read_checkpoint,
    resolve_checkpoint,
)
from fldet.engine.device import describe, select_device
from fldet.engine.prepare import prepare_config
from fldet.evaluation.speed import time_per_image
from fldet.results import SpeedResult

log = logging.getLogger("fldet")

WARMUP = 3


def benchmark(
    cfg: Config,
    checkpoint: Path | None = None,
    *,
    num_images: int = 50,
    shape: tuple[int, int] | None = None,
    device: str = "auto",
    trust_checkpoint: bool = False,
) -> SpeedResult:
    """Times the model of a config, one image at a time; median and 90th percentile.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: weights or a work dir; without one the weights are random, few boxes pass the
            score threshold, and the time of the post-processing is a lower bound.
        num_images: images timed, after three for warming up.
        shape: (height, width) in pixels of a random image to use; None takes the test images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        trust_checkpoint: run the code in the checkpoint if it cannot be read without.

    Raises:
        ConfigError, DataError, CheckpointError, UnavailableError: see ``fldet.errors``.
    """
    chosen = select_device(device)
    model, cfg = _model_and_config(cfg, checkpoint, with_data=shape is None, trust=trust_checkpoint)
    model.eval().to(chosen)
    batches = _random_images(*shape) if shape else _test_images(cfg)
    shapes: list[tuple[int, int]] = []
    times = time_per_image(
        model, _watched(islice(batches, num_images + WARMUP), shapes), warmup=WARMUP
    )
    return SpeedResult(
        median_ms=float(np.median(times)),
        p90_ms=float(np.percentile(times, 90)),
        num_images=len(times),
        image_shape=max(set(shapes), key=shapes.count),
        device=describe(chosen),
        precision=str(next(model.parameters()).dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )


def _model_and_config(
    cfg: Config, checkpoint: Path | None, *, with_data: bool, trust: bool
) -> tuple[nn.Module, Config]:
    path = resolve_checkpoint(checkpoint) if checkpoint else None
    content = read_checkpoint(path, trust=trust) if path else {}
    phases = ("test",) if with_data else ()
    cfg = prepare_config(cfg, phases=phases, classes=checkpoint_classes(content))
    if cfg.model.get("backbone"):
        cfg.model.backbone.init_cfg = None  # a speed needs no pretrained weights
    model = build_model(cfg)
    if path:
        load_weights(model, content, path)
    return model, cfg


def _test_images(cfg: Config) -> Iterator[dict[str, Any]]:
    init_default_scope(cfg.get("default_scope", "mmdet"))
    cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    while True:
        yield from Runner.build_dataloader(cfg.test_dataloader)


def _random_images(height: int, width: int) -> Iterator[dict[str, Any]]:
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    sample = DetDataSample(
        metainfo={
            "img_shape": (height, width),
            "ori_shape": (height, width),
            "scale_factor": (1.0, 1.0),
        }
    )
    while True:
        yield {"inputs": [image], "data_samples": [sample]}


def _watched(
    batches: Iterator[dict[str, Any]], shapes: list[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    """Yields the batches on and notes the (height, width) of their images."""
    for batch in batches:
        height, width = batch["inputs"][0].shape[-2:]
        shapes.append((int(height), int(width)))
        yield batch
