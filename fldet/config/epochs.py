"""A config that counts epochs, as MMDetection's own do, turned into one that counts iterations.

fldet trains by iterations, which can be resumed in the middle of an epoch. An epoch is as many
iterations as MMEngine's loader has batches, so milestones, validations and checkpoints come where
they would. The loader goes through all images before it begins anew, as in epochs.
"""

import logging
import math
import re
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from fldet.errors import ConfigError

log = logging.getLogger("fldet")

# Arguments of schedulers that are numbers of epochs. ReduceOnPlateau counts validations.
_EPOCHS = ("begin", "end", "T_max", "milestones", "step_size", "total_steps", "periods")
_STEPS = ("MultiStep", "Step", "Constant")  # change at an epoch's end and stay: the same either way
_SMOOTH = ("Linear", "CosineAnnealing", "CosineRestart", "Poly", "OneCycle", "Exponential")
_LAST_BEFORE_END = ("Constant", "Linear", "Poly")  # reach their last value one step before ``end``
_KINDS = re.compile(r"(\w+?)(LR|Momentum|ParamScheduler)")
_BY_EPOCH_ALONE = ("YOLOXModeSwitchHook", "PipelineSwitchHook", "SyncNormHook")


def count_iterations(cfg: Config, *, processes: int = 1, images: int | None = None) -> None:
    """Has a prepared config with ``max_epochs`` count iterations, in place; others stay.

    Args:
        cfg: as ``prepare_config`` returned it.
        processes: that share an epoch.
        images: of an epoch; None builds the training data set to see how many it keeps.

    Raises:
        ConfigError: a hook or a schedule counts epochs in a way that has no counterpart.
    """
    train_cfg = cfg.get("train_cfg") or {}
    loop = str(train_cfg.get("type", "EpochBasedTrainLoop")).rpartition(".")[2]
    if "max_epochs" not in train_cfg or loop != "EpochBasedTrainLoop":
        return
    _refuse_hooks(cfg)
    if images is None:
        init_default_scope(cfg.get("default_scope", "mmdet"))
        images = len(DATASETS.build(cfg.train_dataloader.dataset))
    length = iterations_of_an_epoch(cfg.train_dataloader, images, processes)
    epochs = train_cfg["max_epochs"]
    log.info(
        "epochs become iterations: %d images, %d a step of each of %d process%s: %d iterations an "
        "epoch, %d epochs are %d iterations",
        *(images, cfg.train_dataloader.batch_size, processes, "es" if processes > 1 else ""),
        *(length, epochs, epochs * length),
    )
    _set_loop(cfg, train_cfg, length)
    schedulers = cfg.get("param_scheduler") or []
    for number, scheduler in enumerate(
        schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]
    ):
        _count_of_scheduler(scheduler, number, length)
    _set_hooks(cfg, length)


def iterations_of_an_epoch(loader: Any, images: int, processes: int) -> int:
    """Returns how many batches MMEngine's loader has in each process."""
    if loader.get("num_batch_per_epoch"):
        return int(loader["num_batch_per_epoch"])
    share = math.ceil(images / processes) / loader["batch_size"]
    drops = loader.get("drop_last") or (loader.get("batch_sampler") or {}).get("drop_last")
    return max(1, math.floor(share) if drops else math.ceil(share))


def _set_loop(cfg: Config, train_cfg: Any, length: int) -> None:
    every = train_cfg.get("val_interval", 1)
    loop = {
        "type": "IterBasedTrainLoop",
        "max_iters": train_cfg["max_epochs"] * length,
        "val_interval": _times("train_cfg.val_interval", every, length),
    }
    if train_cfg.get("val_begin", 1) > 1:
        loop["val_begin"] = _times("train_cfg.val_begin", train_cfg["val_begin"], length)
    if train_cfg.get("dynamic_intervals"):  # each from the first iteration of its epoch on
        loop["dynamic_intervals"] = [
            ((epoch - 1) * length + 1, interval * length)
            for epoch, interval in train_cfg["dynamic_intervals"]
        ]
    cfg.train_cfg = loop


def _count_of_scheduler(scheduler: Any, number: int, length: int) -> None:
    if not scheduler.get("by_epoch", True):
        return
    name = str(scheduler.get("type")).rpartition(".")[2]
    found = _KINDS.fullmatch(name)
    kind = found[1] if found else name
    if kind not in (*_STEPS, *_SMOOTH):
        raise ConfigError(
            f"param_scheduler {number}: {name} counts epochs, and is not turned into iterations",
            expected=f"by_epoch=False, or one of {', '.join((*_STEPS, *_SMOOTH))}",
        )
    for key in _EPOCHS:
        value = scheduler.get(key)
        if value is not None and value != math.inf:
            scheduler[key] = _times(f"param_scheduler.{number}.{key} of {name}", value, length)
    smooth = scheduler.pop("convert_to_iter_based", False)  # MMEngine scales the numbers alone
    if kind in _LAST_BEFORE_END and scheduler.get("end", math.inf) != math.inf and not smooth:
        scheduler["end"] -= length - 1
    if kind == "Exponential":  # the factor of an epoch, shared by its iterations
        scheduler["gamma"] = scheduler["gamma"] ** (1 / length)
    if kind in _SMOOTH and not smooth:
        log.info("param_scheduler.%d: %s changes at each iteration now", number, name)
    scheduler["by_epoch"] = False


def _set_hooks(cfg: Config, length: int) -> None:
    hooks = cfg.get("default_hooks") or {}
    checkpoint, logger = hooks.get("checkpoint") or {}, hooks.get("logger")
    if checkpoint.get("by_epoch", True):
        for key in ("interval", "save_begin"):
            value = checkpoint.get(key) or 0
            if value > 0:
                name = f"default_hooks.checkpoint.{key}"
                checkpoint[key] = _times(name, value, length)
        checkpoint["by_epoch"] = False
    if logger:
        logger["log_metric_by_epoch"] = False
    if cfg.get("log_processor"):
        cfg.log_processor["by_epoch"] = False


def _times(name: str, value: Any, length: int) -> Any:
    """Returns a number of epochs, or several, in iterations."""
    many = isinstance(value, (list, tuple))
    scaled = [one * length for one in (value if many else [value])]
    before = ", ".join(map(str, value if many else [value]))
    log.info("%s: %s -> %s iterations", name, before, ", ".join(map(str, scaled)))
    return scaled if many else scaled[0]


def _refuse_hooks(cfg: Config) -> None:
    """Raises a ConfigError for a custom hook that has to do with epochs."""
    for number, hook in enumerate(cfg.get("custom_hooks") or []):
        name = str(hook.get("type")).rpartition(".")[2]
        keys = [key for key in hook if "epoch" in key and key != "by_epoch"]
        if keys or name in _BY_EPOCH_ALONE:
            raise ConfigError(
                f"custom_hooks {number}: {name} counts epochs ({', '.join(keys) or 'always'}), "
                "and fldet trains by iterations",
                expected="a config without it, or one by iterations",
                hint=f"--cfg-options custom_hooks=[]  # drops all {len(cfg.custom_hooks)}",
            )
