"""Measuring how fast the model of a config is."""

import math
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from torch import nn

from fldet.analysis.flops.count import count_flops
from fldet.benchmark.clock import TIMED, time_in_turns, time_stages
from fldet.benchmark.rates import measured_rates
from fldet.benchmark.results import SpeedComparison, SpeedResult
from fldet.checkpoints.files import (
    checkpoint_classes,
    load_weights,
    read_checkpoint,
    resolve_checkpoint,
)
from fldet.checkpoints.model import build_model
from fldet.config.prepare import prepare_config
from fldet.data.random_batches import random_batch
from fldet.devices import describe, select_device
from fldet.engine.doctor import machine
from fldet.engine.memory import peak_memory
from fldet.engine.runner import FldetRunner
from fldet.errors import ConfigError, UsageError
from fldet.models.fast.cuda_graph import graphed, require_graphs
from fldet.models.fast.optimize import (
    as_in_mmdetection,
    network_precision,
    optimized,
    require_precision,
)

# Images or steps before those that count; a GPU needs more until its libraries have chosen.
WARMUP = {"cpu": 3, "cuda": 10}


def benchmark(
    cfg: Config,
    checkpoint: Path | None = None,
    *,
    num_images: int = 50,
    shape: tuple[int, int] | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    cuda_graph: bool = False,
    against: str | None = None,
    trust_checkpoint: bool = False,
) -> SpeedResult:
    """Times the model of a config, one image at a time: median, percentiles, stages.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: weights or a work dir; without one the weights are random, few boxes pass the
            score threshold, and the time of the post-processing is a lower bound.
        num_images: images timed, after those for warming up.
        shape: (height, width) in pixels of a random image to use; None takes the test images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16`` times an optimized copy; None the model as it is.
        compile: time an optimized copy whose network is compiled; in ``fp32`` without
            ``precision``.
        cuda_graph: time an optimized copy whose network is replayed as CUDA graphs; needs a GPU
            and ``shape``.
        against: ``mmdet`` times MMDetection's own code too, in float32, in turns.
        trust_checkpoint: run the code in the checkpoint if it cannot be read without.

    Raises:
        UsageError: another ``precision`` or ``against``, or ``cuda_graph`` without ``shape``.
        ConfigError, DataError, CheckpointError, UnavailableError: see ``fldet.errors``.
    """
    check_against(against)
    if cuda_graph and shape is None:
        raise UsageError("--cuda-graph needs images of one size", hint="add --shape 800x1333")
    chosen = select_device(device)
    if precision:
        require_precision(precision, chosen)
    if cuda_graph:
        require_graphs(chosen)
    model, prepared = _model_and_config(
        cfg, checkpoint, with_data=shape is None, trust=trust_checkpoint
    )
    models = [model.eval().to(chosen)]
    if against:
        models.append(as_in_mmdetection(model))
    if precision or compile or cuda_graph:
        models[0] = optimized(model, precision=precision or "fp32", compile=compile)
    is_optimized = models[0] is not model
    del model  # a copy alone is what takes memory

    def images() -> Iterator[dict[str, Any]]:
        return repeat(random_batch(1, shape, 1, boxes=0)) if shape else _test_images(prepared)

    warmup = WARMUP[chosen.type]
    if compile:
        _compile_for(models[0], islice(images(), num_images + warmup))
    if cuda_graph:
        graphed(models[0], next(images()))
    first = next(images())
    timed: Any = models[0]
    with torch.inference_mode():
        memory = peak_memory(lambda: timed.test_step(first), chosen)
    shapes: list[tuple[int, int]] = []
    batches = _watched(islice(images(), num_images + warmup), shapes)
    rows = time_in_turns(models, batches, warmup=warmup)
    stages = time_stages(models[0], islice(images(), min(num_images, 10) + 1))
    if shape:
        stages.pop("load", None)  # a random image comes from nowhere
    network = network_precision(models[0])
    return summarize(
        rows,
        device=chosen,
        shape=max(set(shapes), key=shapes.count),
        gflop=lambda size: _network_gflop(cfg, size),
        dtype=getattr(torch, network),
        memory=memory,
        against=against,
        warmup=warmup,
        precision=network,
        stages_ms=stages,
        optimized=is_optimized,
        compiled=compile,
        cuda_graph=cuda_graph,
        timed=TIMED,
        weights=str(checkpoint or "random"),
    )


def check_against(against: str | None) -> None:
    """Checks that there is such a comparison.

    Raises:
        UsageError: there is not.
    """
    if against not in (None, "mmdet"):
        raise UsageError(f"unknown comparison {against!r}", expected="mmdet")


def summarize(
    rows: NDArray[np.float64],
    *,
    device: torch.device,
    shape: tuple[int, int],
    gflop: Callable[[tuple[int, int]], float],
    dtype: torch.dtype,
    memory: tuple[float, str],
    against: str | None = None,
    batch_size: int = 1,
    **others: Any,
) -> SpeedResult:
    """Returns what times say, with what they were measured on.

    Args:
        rows: milliseconds of each image or step (row), of the model and of what it is compared
            with (columns).
        device: of the model.
        shape: (height, width) of most images, in pixels.
        gflop: work of an image or step, for ``shape``.
        dtype: in which the network computes.
        memory: as ``peak_memory`` returned it.
        against: name of the second column.
        batch_size: images of a row.
        **others: fields of ``SpeedResult`` as they are.
    """
    times = rows[:, 0]
    median = float(np.median(times))
    rates, work = measured_rates(device, dtype), gflop(shape)
    return SpeedResult(
        median_ms=median,
        p90_ms=float(np.percentile(times, 90)),
        p99_ms=float(np.percentile(times, 99)),
        num_images=len(times),
        image_shape=shape,
        device=describe(device),
        threads=torch.get_num_threads(),
        images_per_second=1000 * batch_size / float(np.mean(times)),
        batch_size=batch_size,
        against=_comparison(against, rows) if against else None,
        machine=machine(),
        gflop=work,
        machine_gflops=rates,
        peak_share=work / (median / 1000) / max(rates.values()),
        peak_memory_mib=memory[0],
        memory=memory[1],
        **others,
    )


def _network_gflop(cfg: Config, shape: tuple[int, int]) -> float:
    try:
        return sum(call.flops for call in count_flops(cfg, shape).calls) / 1e9
    except ConfigError:  # not a one-stage detector
        return math.nan


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
    classes = checkpoint_classes(content, path) if path else None
    cfg = prepare_config(cfg, phases=phases, classes=classes)
    if cfg.model.get("backbone"):
        cfg.model.backbone.init_cfg = None  # a speed needs no pretrained weights
    model = build_model(cfg)
    if path:
        load_weights(model, content, path)
    return model, cfg


def _test_images(cfg: Config) -> Iterator[dict[str, Any]]:
    init_default_scope(cfg.get("default_scope", "mmdet"))
    cfg.test_dataloader.update(batch_size=1, num_workers=0)
    while True:
        yield from FldetRunner.build_dataloader(cfg.test_dataloader)


def _watched(
    batches: Iterator[dict[str, Any]], shapes: list[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    """Yields the batches on and notes the (height, width) of their images."""
    for batch in batches:
        height, width = batch["inputs"][0].shape[-2:]
        shapes.append((int(height), int(width)))
        yield batch
