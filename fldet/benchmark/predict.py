"""Measuring how fast the model of a config is."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from fldet.analysis.flops.count import count_flops, flop_counter
from fldet.benchmark.clock import (
    TIMED,
    WARMUP,
    Batch,
    WatchedBatches,
    time_in_turns,
    time_stages,
)
from fldet.benchmark.results import SpeedResult
from fldet.benchmark.summary import Timing, check_against, summarize
from fldet.checkpoints.model import load_model
from fldet.checkpoints.stored_config import find_pipeline
from fldet.config.sizes import require_size
from fldet.data.random_batches import random_batch
from fldet.devices import select_device
from fldet.engine.memory import peak_memory
from fldet.engine.runner import FldetRunner
from fldet.engine.step_errors import explained_step_errors
from fldet.errors import ConfigError, UsageError
from fldet.models.dense_heads.retina_head import RetinaHead
from fldet.models.fast.cuda_graph import graphed, require_graphs
from fldet.models.fast.optimize import (
    as_in_mmdetection,
    network_precision,
    optimized,
    require_precision,
)


@dataclasses.dataclass(frozen=True)
class OptimizedCopy:
    """A faster copy of a model, batch norms folded, to be timed instead of the model.

    Attributes:
        precision: ``fp32`` or ``bf16``.
        compile: whether its network is compiled.
        cuda_graph: whether its network is replayed as CUDA graphs; that needs a GPU and images of
            one size.
    """

    precision: str = "fp32"
    compile: bool = False
    cuda_graph: bool = False

    def require(self, device: torch.device) -> None:
        """Raises a UsageError or UnavailableError where a device cannot run such a copy."""
        require_precision(self.precision, device)
        if self.cuda_graph:
            require_graphs(device)


def benchmark(
    cfg: Config,
    checkpoint: Path | None = None,
    *,
    num_images: int = 50,
    shape: tuple[int, int] | None = None,
    device: str = "auto",
    copy: OptimizedCopy | None = None,
    against: str | None = None,
    trust_checkpoint: bool = False,
) -> SpeedResult:
    """Times the model of a config, one image at a time: median, percentiles, stages.

    Args:
        cfg: as ``load_config`` returned it.
        checkpoint: weights or a work dir; without one the weights are random, few boxes pass the
            score threshold, and the time of the post-processing is a lower bound. An RPN suppresses
            nothing then, and so proposes as many regions as a trained one.
        num_images: images timed, after those for warming up.
        shape: (height, width) in pixels of a random image to use; None takes the test images. It
            must be that to which the config warps all images, if it does so.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        copy: is timed instead of the model; with ``cuda_graph`` it needs ``shape``.
        against: ``mmdet`` times MMDetection's own code too, in float32, in turns.
        trust_checkpoint: run the code in the checkpoint if it cannot be read without.

    Raises:
        UsageError: another precision or ``against``, CUDA graphs without ``shape``, or a ``shape``
            too small for the network.
        ConfigError, DataError, CheckpointError, UnavailableError: see ``fldet.errors``.
    """
    check_against(against)
    if copy and copy.cuda_graph and shape is None:
        raise UsageError("--cuda-graph needs images of one size", hint="add --shape 800x1333")
    if shape:
        require_size(find_pipeline(cfg), shape)
    chosen = select_device(device)
    if copy:
        copy.require(chosen)
    loaded = load_model(cfg, checkpoint, phases=() if shape else ("test",), trust=trust_checkpoint)
    parameters = sum(value.numel() for value in loaded.model.parameters())
    if checkpoint is None:
        _propose_as_many(loaded.model)
    images = partial(_images, loaded.cfg, shape)
    models = _models_to_time(loaded.model.to(chosen), copy, against)
    del loaded  # a copy alone is what takes memory
    if copy:
        with explained_step_errors():
            _get_ready(models[0], copy, images, num_images + WARMUP[chosen.type])
    with explained_step_errors():
        timing, stages = _time_images(models, images, num_images, chosen, cfg)
    if shape:
        stages.pop("load", None)  # a random image comes from nowhere
    return summarize(
        timing,
        against,
        warmup=WARMUP[chosen.type],
        stages_ms=stages,
        optimized=copy is not None,
        compiled=bool(copy and copy.compile),
        cuda_graph=bool(copy and copy.cuda_graph),
        timed=TIMED,
        weights=str(checkpoint or "random"),
        parameters=parameters,
    )


def _propose_as_many(model: nn.Module) -> None:
    """Has an RPN of random weights propose as many regions as one that was trained.

    Its boxes lie close together, and hardly one is left where they are suppressed.
    """
    config = getattr(getattr(model, "rpn_head", None), "test_cfg", None)
    if config:
        config["nms"] = {**config["nms"], "iou_threshold": 1.0}


def _models_to_time(
    model: nn.Module, copy: OptimizedCopy | None, against: str | None
) -> list[nn.Module]:
    """Returns the model or its copy and, to compare with, the model in MMDetection's way."""
    if against:
        _require_counterpart(model, is_copied=copy is not None)
    stock = [as_in_mmdetection(model)] if against else []
    if copy:
        model = optimized(model, precision=copy.precision, compile=copy.compile)
    return [model, *stock]


def _require_counterpart(model: nn.Module, *, is_copied: bool) -> None:
    """Raises a UsageError where MMDetection would have the same model, or cannot have it."""
    if isinstance(getattr(model, "bbox_head", None), RetinaHead):
        return
    kinds = {type(module) for module in model.modules()}
    ours = sorted(kind.__name__ for kind in kinds if kind.__module__.startswith("fldet.models."))
    name = type(model).__name__
    if ours:
        raise UsageError(
            f"--against mmdet: MMDetection has no {', '.join(ours)} to compare a {name} with",
            expected="a model of MMDetection's parts, or with fldet.RetinaHead",
            hint="leave --against out",
        )
    if not is_copied:
        raise UsageError(
            f"--against mmdet: nothing in this {name} is fldet's, it would be timed against itself",
            expected="a model with fldet.RetinaHead, or an optimized copy",
            hint="leave --against out, or time a copy: --precision fp32",
        )


def _images(cfg: Config, shape: tuple[int, int] | None, count: int) -> Iterator[Batch]:
    """Returns so many batches of one image: random of a shape, or the test images of a config."""
    batches = repeat(random_batch(1, shape, 1, boxes=0)) if shape else images_of_the_test(cfg)
    return islice(batches, count)


def _get_ready(
    model: nn.Module, copy: OptimizedCopy, images: Callable[[int], Iterator[Batch]], count: int
) -> None:
    """Does what is done once and not timed, for the first ``count`` images."""
    if copy.compile:
        _compile_for(model, images(count))
    if copy.cuda_graph:
        graphed(model, next(images(1)))


def _time_images(
    models: list[nn.Module],
    images: Callable[[int], Iterator[Batch]],
    count: int,
    device: torch.device,
    cfg: Config,
) -> tuple[Timing, dict[str, float]]:
    """Returns the times of ``count`` images by the models, and the stages of the first model."""
    timed: Any = models[0]
    first, warmup = next(images(1)), WARMUP[device.type]
    with torch.inference_mode():
        memory = peak_memory(lambda: timed.test_step(first), device)
    watched = WatchedBatches(images(count + warmup), device)
    rows = time_in_turns(models, watched, warmup=warmup)
    stages = time_stages(timed, images(min(count, 10) + 1))
    shape = watched.most_frequent_shape
    gflop = _network_gflop(cfg, shape, device)
    return Timing(rows, device, network_precision(timed), shape, gflop, memory), stages


def _network_gflop(cfg: Config, shape: tuple[int, int], device: torch.device) -> float:
    """Returns the billions of operations of the network, of one stage or of two, for an image."""
    if cfg.model.get("roi_head"):
        return _step_gflop(cfg, shape, device)
    try:
        return sum(call.flops for call in count_flops(cfg, shape).calls) / 1e9
    except ConfigError:  # not a one-stage detector
        return math.nan


def _step_gflop(cfg: Config, shape: tuple[int, int], device: torch.device) -> float:
    """Counts a test step with random weights, in which RPN passes all the proposals it may."""
    model: Any = load_model(cfg, None).model.to(device)
    _propose_as_many(model)
    with torch.no_grad(), flop_counter() as counter:
        model.test_step(random_batch(1, shape, 1, boxes=0))
    return counter.get_total_flops() / 1e9


def _compile_for(model: Any, batches: Iterator[Batch]) -> None:
    """Runs a model on one image of each size, so that none is compiled while the clock runs."""
    watched = WatchedBatches(batches, torch.device("cpu"))
    with torch.inference_mode():
        for batch in watched:
            if watched.shapes.count(watched.shapes[-1]) == 1:
                model.test_step(batch)


def images_of_the_test(cfg: Config) -> Iterator[Batch]:
    """Yields the test images of a config one at a time, over and over."""
    init_default_scope(cfg.get("default_scope", "mmdet"))
    cfg.test_dataloader.update(batch_size=1, num_workers=0)
    while True:
        yield from FldetRunner.build_dataloader(cfg.test_dataloader)
