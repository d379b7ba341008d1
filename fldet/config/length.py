"""Another length for a training: the schedule, validations and checkpoints follow it."""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from fldet.config.epochs import iterations_of_an_epoch
from fldet.errors import UsageError

log = logging.getLogger("fldet")

_LINEAR = ("LinearLR", "ConstantLR", "LinearMomentum", "ConstantMomentum")
_MOST_WARM_UP = 0.25  # of a training
_TIMES = ("begin", "end", "T_max", "milestones", "step_size", "total_steps", "periods")


def set_epochs(cfg: Config, epochs: float, *, images: int | None, processes: int) -> None:
    """Sets the length of a config by iterations to so many epochs, in place; see ``set_length``.

    ``images`` are those of a step of one of the ``processes``, None for the config's.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    count = len(DATASETS.build(cfg.train_dataloader.dataset))
    loader = {**cfg.train_dataloader, **({"batch_size": images} if images else {})}
    length = iterations_of_an_epoch(loader, count, processes)
    log.info("an epoch of %d images has %d iterations", count, length)
    set_length(cfg, max(1, round(epochs * length)))


def set_length(cfg: Config, iterations: int) -> None:
    """Sets the length of a config by iterations, in place.

    Milestones and ends of the schedule, validations and checkpoints come at the same parts of the
    training; a warm-up keeps its iterations, but is a quarter of the training at most.
    """
    if iterations < 1:
        raise UsageError(f"a training of {iterations} iterations", expected="at least 1")
    before = cfg.train_cfg["max_iters"]
    factor = iterations / before
    cfg.train_cfg["max_iters"] = iterations
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    for name, owner, key in (
        ("train_cfg.val_interval", cfg.train_cfg, "val_interval"),
        ("train_cfg.val_begin", cfg.train_cfg, "val_begin"),
        ("default_hooks.checkpoint.interval", checkpoint, "interval"),
        ("default_hooks.checkpoint.save_begin", checkpoint, "save_begin"),
    ):
        value = owner.get(key) or 0
        if value > 0:
            owner[key] = _scaled(value, factor)
            log.info("%s %d -> %d", name, value, owner[key])
    if cfg.train_cfg.get("dynamic_intervals"):
        cfg.train_cfg["dynamic_intervals"] = [
            (round((start - 1) * factor) + 1, _scaled(every, factor))
            for start, every in cfg.train_cfg["dynamic_intervals"]
        ]
    schedulers = list(_schedulers(cfg))
    ends = {one["end"]: _warm_up(one["end"], iterations) for one in schedulers if _is_warm_up(one)}
    for one in schedulers:
        for key in set(_TIMES) & set(one):
            one[key] = _moved(one[key], factor, ends if key in ("begin", "end") else {})
    log.info("a training of %d iterations instead of %d; the schedule follows", iterations, before)


def _schedulers(cfg: Config) -> Iterator[Any]:
    """Yields those that count iterations."""
    found: Any = cfg.get("param_scheduler") or []
    groups = found.values() if isinstance(found, Mapping) and "type" not in found else [found]
    for group in groups:
        for one in group if isinstance(group, (list, tuple)) else [group]:
            if not one.get("by_epoch", True):
                yield one


def _is_warm_up(scheduler: Any) -> bool:
    name = str(scheduler.get("type")).rpartition(".")[2]
    end = scheduler.get("end", math.inf)
    return name in _LINEAR and not scheduler.get("begin") and 0 < end < math.inf


def _warm_up(end: int, iterations: int) -> int:
    return max(1, min(end, round(_MOST_WARM_UP * iterations)))


def _moved(value: Any, factor: float, fixed: Mapping[Any, int]) -> Any:
    """Returns an iteration, or several, at the same part of the training."""
    if isinstance(value, (list, tuple)):
        return [_moved(one, factor, fixed) for one in value]
    if value in fixed:
        return fixed[value]
    return value if value in (None, 0, math.inf) or value < 0 else _scaled(value, factor)


def _scaled(value: float, factor: float) -> int:
    return max(1, round(value * factor))
