"""Measuring how fast the training step of a config is."""

import contextlib
import copy
import logging
import math
import tempfile
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from fldet.analysis.flops.count import flop_counter
from fldet.benchmark.clock import (
    TIMED_TRAINING,
    TRAINING_STAGES,
    WARMUP,
    Batch,
    Marks,
    WatchedBatches,
    take_turns,
    wrap_method,
)
from fldet.benchmark.results import SpeedResult
from fldet.benchmark.summary import Timing, check_against, summarize
from fldet.checkpoints.pretrained import drop_pretrained
from fldet.checkpoints.stored_config import pipeline_of
from fldet.config.check import TRAINING_KEYS
from fldet.config.epochs import count_iterations
from fldet.config.prepare import prepare_config
from fldet.config.resolve import settle_training
from fldet.config.sizes import require_size
from fldet.config.train_step import set_train_step, use_wrapper
from fldet.data.random_batches import random_batch
from fldet.devices import select_device
from fldet.engine.memory import peak_memory
from fldet.engine.step_errors import explained_step_errors
from fldet.engine.train import training_runner
from fldet.errors import UsageError
from fldet.models.fast.bfloat16 import Bfloat16OptimWrapper

BOXES = 7  # of a random image; the mean of COCO

# What stands for a part of ours in MMDetection, and what it is not told.
_STOCK = {
    "fldet.RetinaHead": "mmdet.RetinaHead",
    "fldet.FocalLoss": "mmdet.FocalLoss",
    "fldet.MaxIoUAssigner": "mmdet.MaxIoUAssigner",
    "fldet.DetDataPreprocessor": "mmdet.DetDataPreprocessor",
    "fldet.AnchorGenerator": "fldet.AnchorGenerator",  # theirs, with the paper's words for it
}
_OURS_ALONE = ("normalizer", "prior_prob")


def benchmark_training(
    cfg: Config,
    *,
    steps: int = 20,
    batch_size: int | None = None,
    shape: tuple[int, int] | None = None,
    device: str = "auto",
    amp: bool = False,
    against: str | None = None,
) -> SpeedResult:
    """Times the training step of a config: median, percentiles, stages.

    The step is the model's own ``train_step`` with the config's optimizer, as ``fldet train``
    builds them. The weights are random, and the learning rate is 0, so that they stay.

    Args:
        cfg: as ``load_config`` returned it.
        steps: how many are timed, after those for warming up.
        batch_size: images of a step; None as the config says.
        shape: (height, width) in pixels of random images with seven boxes each; None takes the
            training images. It must be that to which the config warps all of them, if it does so.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        amp: as ``fldet train --amp``.
        against: ``mmdet`` times MMDetection's head, loss and assigner too, in float32, in turns, on
            the same batches and weights.

    Raises:
        UsageError: another ``against``, a part of the model has no counterpart in MMDetection, or
            images are too small, or too few, for the network.
        ConfigError, DataError, UnavailableError: see ``fldet.errors``.
    """
    check_against(against)
    if shape:
        require_size(pipeline_of(cfg.get("train_dataloader")), shape)
    chosen = select_device(device)
    prepared = prepare_config(cfg, phases=() if shape else ("train",))
    prepared.update(custom_hooks=[], param_scheduler=[])  # of a run; single steps have none
    count_iterations(prepared, images=prepared.train_dataloader.batch_size)
    prepared.auto_scale_lr = None  # the rate is 0
    if amp:
        prepared.amp = True
    if batch_size is not None:
        prepared.train_dataloader.batch_size = batch_size
    configs = [prepared, in_mmdetection(prepared)] if against else [prepared]
    set_train_step(prepared, chosen)
    with tempfile.TemporaryDirectory() as work_dir:
        try:
            with explained_step_errors():
                return _time_steps(
                    configs, work_dir, device=chosen, steps=steps, shape=shape, against=against
                )
        finally:
            _close_logs()


def _time_steps(
    configs: list[Config],
    work_dir: str,
    *,
    device: torch.device,
    steps: int,
    shape: tuple[int, int] | None,
    against: str | None,
) -> SpeedResult:
    """Times steps of the first config, with those of a second one, ``against``, in turns."""
    ours = _Trainer(configs[0], device, work_dir)
    size = configs[0].train_dataloader.batch_size
    if shape:
        batches = _random_batches(size, shape, _num_classes(configs[0].model))
    else:
        batches = ours.loader()
    first = next(batches)
    memory = peak_memory(lambda: ours.step(first), device)
    gflop = ours.gflop(first)
    trainers = [ours, *(_Trainer(cfg, device, work_dir) for cfg in configs[1:])]
    for stock in trainers[1:]:
        stock.model.load_state_dict(ours.model.state_dict())
    warmup = WARMUP[device.type]
    watched = WatchedBatches(islice(batches, warmup + steps), device)
    rows = take_turns([one.step for one in trainers], watched, warmup=warmup)
    ours.runner.close()  # loader processes at work would be missed when this one ends
    stages = ours.stages(steps)
    if stages and not shape:
        stages = {"load": float(np.median(watched.waits_ms[warmup:])), **stages}
    most = watched.most_frequent_shape
    return summarize(
        Timing(rows, device, ours.precision, most, gflop, memory, size),
        against,
        warmup=warmup + 2,
        stages_ms=stages,
        compiled=ours.is_compiled,
        training=True,
        timed=TIMED_TRAINING,
    )


def in_mmdetection(cfg: Config) -> Config:
    """Returns a prepared config with MMDetection's head, loss, assigner and optimizer.

    Raises:
        UsageError: a part of the model has no counterpart in MMDetection.
    """
    if not cfg.model.get("bbox_head"):
        raise _no_counterpart(f"{cfg.model.get('type')}, which has no bbox_head of one stage,")
    cfg = copy.deepcopy(cfg)
    for name in TRAINING_KEYS:
        cfg.pop(name, None)
    use_wrapper(cfg, "OptimWrapper")
    if (cfg.model.get("train_cfg") or {}).get("miner"):
        raise _no_counterpart("train_cfg.miner")
    for name in _OURS_ALONE:
        cfg.model.bbox_head.pop(name, None)
    _use_stock_parts(cfg.model)
    return cfg


def _use_stock_parts(part: Any) -> None:
    if isinstance(part, dict):
        name = part.get("type")
        if isinstance(name, str) and name.startswith("fldet."):
            if name not in _STOCK:
                raise _no_counterpart(name)
            part["type"] = _STOCK[name]
            if name == "fldet.FocalLoss":
                _require_stock_loss(part)
        for value in part.values():
            _use_stock_parts(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            _use_stock_parts(value)


def _require_stock_loss(loss: dict[str, Any]) -> None:
    alpha, weights = loss.get("alpha", 0.25), loss.get("class_weight")
    if not isinstance(alpha, float):
        raise _no_counterpart(f"fldet.FocalLoss with alpha={alpha}")
    if weights is not None:
        raise _no_counterpart(f"fldet.FocalLoss with class_weight={weights}")


def _no_counterpart(name: str) -> UsageError:
    return UsageError(
        f"{name} has no counterpart in MMDetection to compare with",
        expected="a RetinaNet with the focal loss, as in configs/retinanet/r50_fpn_1x.py",
        hint="leave --against out",
    )


class _Trainer:
    """Model and optimizer of a config, and the times of their steps."""

    def __init__(self, cfg: Config, device: torch.device, work_dir: str) -> None:
        cfg = settle_training(cfg, device=device)
        cfg.work_dir = work_dir
        cfg.optim_wrapper.optimizer.lr = 0.0
        drop_pretrained(cfg.model)  # a speed needs none
        self.device = device
        self.is_compiled = bool(cfg.get("compile"))
        self.runner = training_runner(cfg, device)
        self.model: Any = self.runner.model
        self.model.init_weights()
        self.model.train()
        self.optimizer: OptimWrapper = self.runner.build_optim_wrapper(cfg.optim_wrapper)
        self._laps: list[list[float]] = []

    @property
    def precision(self) -> str:
        """Data type of the network in a step."""
        if isinstance(self.optimizer, Bfloat16OptimWrapper):
            return "bfloat16 autocast"
        if isinstance(self.optimizer, AmpOptimWrapper):
            dtype = self.optimizer.cast_dtype or torch.float16
            return f"{str(dtype).removeprefix('torch.')} autocast"
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    def loader(self) -> Iterator[Batch]:
        """Yields the batches of the config's own training images, without end."""
        return iter(self.runner.train_loop.dataloader_iterator)

    def step(self, batch: Batch) -> float:
        """Does a training step and returns its milliseconds."""
        marks = Marks(self.device)
        with self._marking(marks):
            self.model.train_step(batch, optim_wrapper=self.optimizer)
        marks.mark()
        laps = marks.laps_ms()
        self._laps.append(laps)
        return sum(laps)

    def stages(self, steps: int) -> dict[str, float]:
        """Returns the median milliseconds of each stage of the last steps; none if unknown."""
        last = self._laps[-steps:]
        if len(last[0]) != len(TRAINING_STAGES) - 1:
            return {}
        return dict(zip(TRAINING_STAGES[1:], np.median(last, axis=0).tolist(), strict=True))

    def gflop(self, batch: Batch) -> float:
        """Returns the billions of operations of a step; NaN where a compiler hides them."""
        if self.is_compiled:
            return math.nan
        with flop_counter() as counter:
            self.model.train_step(batch, optim_wrapper=self.optimizer)
        return counter.get_total_flops() / 1e9

    @contextlib.contextmanager
    def _marking(self, marks: Marks) -> Iterator[None]:
        """Marks where a stage of the step ends, without a change of what it does."""
        head, optimizer = getattr(self.model, "bbox_head", None), self.optimizer
        with contextlib.ExitStack() as stack:
            if isinstance(head, nn.Module) and hasattr(head, "loss_by_feat"):
                done = self.model.data_preprocessor.register_forward_hook(lambda *_: marks.mark())
                stack.callback(done.remove)
                wrap_method(stack, head, "loss_by_feat", before=marks.mark)
                wrap_method(stack, optimizer, "backward", before=marks.mark, after=marks.mark)
            yield


def _random_batches(size: int, shape: tuple[int, int], num_classes: int) -> Iterator[Batch]:
    batch = random_batch(size, shape, num_classes, boxes=BOXES)
    while True:
        yield {name: list(values) for name, values in batch.items()}


def _num_classes(part: Any) -> int:
    """Returns the largest ``num_classes`` of a model: that of RPN, where there is one, is 1."""
    if isinstance(part, (list, tuple)):
        return max([0, *map(_num_classes, part)])
    if not isinstance(part, dict):
        return 0
    return max([int(part.get("num_classes") or 0), *map(_num_classes, part.values())])


def _close_logs() -> None:
    """Closes the log files in a folder that goes away."""
    for logger in MMLogger._instance_dict.values():
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                logger.removeHandler(handler)
