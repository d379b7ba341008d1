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
from numpy.typing import NDArray
from torch import nn

from fldet.engine.build import build_model
from fldet.engine.checkpoint import (
    checkpoint_classes,
    load_weights,
    read_checkpoint,
    resolve_checkpoint,
)
from fldet.engine.device import describe, select_device
from fldet.engine.optimize import as_in_mmdetection, network_precision, optimized, require_precision
from fldet.engine.prepare import prepare_config
from fldet.errors import UsageError
from fldet.evaluation.speed import TIMED, machine, time_in_turns, time_stages
from fldet.results import SpeedComparison, SpeedResult

log = logging.getLogger("fldet")

WARMUP = 3


def benchmark(
    cfg: Config,
    checkpoint: Path | None = None,
    *,
    num_images: int = 50,
    shape: tuple[int, int] | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    against: str | None = None,
    trust_checkpoint: bool = False,
) -> SpeedResult:
    """Times the model of a config, one image at a time: median, percentiles, stages.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: weights or a work dir; without one the weights are random, few boxes pass the
            score threshold, and the time of the post-processing is a lower bound.
        num_images: images timed, after three for warming up.
        shape: (height, width) in pixels of a random image to use; None takes the test images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16`` times an optimized copy; None the model as it is.
        compile: time an optimized copy whose network is compiled; in ``fp32`` without
            ``precision``.
        against: ``mmdet`` times MMDetection's own code too, in float32, in turns.
        trust_checkpoint: run the code in the checkpoint if it cannot be read without.

    Raises:
        UsageError: another ``precision`` or ``against``.
        ConfigError, DataError, CheckpointError, UnavailableError: see ``fldet.errors``.
    """
    if against not in (None, "mmdet"):
        raise UsageError(f"unknown comparison {against!r}", expected="mmdet")
    chosen = select_device(device)
    if precision:
        require_precision(precision, chosen)
    model, cfg = _model_and_config(cfg, checkpoint, with_data=shape is None, trust=trust_checkpoint)
    models = [model.eval().to(chosen)]
    if against:
        models.append(as_in_mmdetection(model))
    if precision or compile:
        models[0] = optimized(model, precision=precision or "fp32", compile=compile)

    def images() -> Iterator[dict[str, Any]]:
        return _random_images(*shape) if shape else _test_images(cfg)

    if compile:
        _compile_for(models[0], islice(images(), num_images + WARMUP))
    shapes: list[tuple[int, int]] = []
    batches = _watched(islice(images(), num_images + WARMUP), shapes)
    rows = time_in_turns(models, batches, warmup=WARMUP)
    times = rows[:, 0]
    return SpeedResult(
        median_ms=float(np.median(times)),
        p90_ms=float(np.percentile(times, 90)),
        num_images=len(times),
        image_shape=max(set(shapes), key=shapes.count),
        device=describe(chosen),
        precision=network_precision(models[0]),
        threads=torch.get_num_threads(),
        p99_ms=float(np.percentile(times, 99)),
        images_per_second=1000 / float(np.mean(times)),
        stages_ms=time_stages(models[0], islice(images(), min(num_images, 10) + 1)),
        optimized=models[0] is not model,
        compiled=compile,
        against=_comparison(against, rows) if against else None,
        timed=TIMED,
        machine=machine(),
    )


def _compile_for(model: Any, batches: Iterator[dict[str, Any]]) -> None:
    """Runs a model on one image of each size, so that none is compiled while the clock runs."""
    seen: list[tuple[int, int]] = []
    with torch.inference_mode():
        for batch in _watched(batches, seen):
            if seen.count(seen[-1]) == 1:
                model.test_step(batch)


def _comparison(name: str, rows: NDArray[np.float64]) -> SpeedComparison:
    """Returns how the second column of ``time_in_turns`` compares with the first."""
    ratios = rows[:, 1] / rows[:, 0]
    return SpeedComparison(name, float(np.median(rows[:, 1])), float(np.median(ratios)))


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
