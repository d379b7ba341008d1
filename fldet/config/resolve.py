"""The one config that is run: completed here, once, and afterwards only read.

``resolve_training`` fills in what a config leaves implied and what the command line adds;
``settle_training`` what only the work dir and the device can tell. What comes out is saved in the
work dir, printed by ``fldet config show --resolved``, and never written to again.
"""

import copy
import itertools
import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from fldet.config.epochs import count_iterations
from fldet.config.length import set_epochs, set_length
from fldet.config.nms import suppress_across_classes
from fldet.config.prepare import our_datasets, prepare_config, scale_learning_rate
from fldet.config.train_step import set_train_step
from fldet.data.slicing.views import Views, pipeline_of_views
from fldet.data.stream import MOST_OF_A_SEED, is_seed
from fldet.errors import ConfigError, shorten

log = logging.getLogger("fldet")

_run_numbers = itertools.count(1)

_MOST_ACCUMULATED = 100_000  # batches of a step


@dataclass(frozen=True)
class TrainOptions:
    """What a training is told beside its config; None leaves the config's."""

    work_dir: Path | None = None
    seed: int | None = None
    amp: bool | None = None
    auto_scale_lr: bool | None = None
    processes: int = 1  # that share an epoch, where the config counts epochs
    loggers: tuple[str, ...] | None = None
    max_iters: int | None = None  # another length, with the schedule, of iterations ...
    epochs: float | None = None  # ... or epochs
    images: int | None = None  # of a step of one process, to count epochs


def resolve_training(cfg: Config, device: torch.device, options: TrainOptions) -> Config:
    """Returns a copy of a loaded config with all that a training on a device implies."""
    phases = ("train", "val") if cfg.get("val_dataloader") else ("train",)
    resolved = prepare_config(cfg, phases=phases)
    count_iterations(resolved, processes=options.processes)
    _require_iterations(resolved)
    if options.epochs is not None:
        set_epochs(resolved, options.epochs, images=options.images, processes=options.processes)
    elif options.max_iters is not None:
        set_length(resolved, options.max_iters)
    if options.amp is not None:
        resolved.amp = options.amp
    if options.loggers is not None:
        resolved.loggers = list(options.loggers)
    set_train_step(resolved, device)
    _accumulate(resolved)
    if options.auto_scale_lr is not None and resolved.get("auto_scale_lr"):
        resolved.auto_scale_lr.enable = options.auto_scale_lr
    if options.seed is not None:
        _set_seed(resolved, options.seed)
    _check_seed(resolved)
    resolved.work_dir = str(options.work_dir or default_work_dir(cfg))
    _use_our_hooks(resolved)
    return resolved


def settle_training(
    cfg: Config,
    *,
    seed: int | None = None,
    images: int | None = None,
    processes: int = 1,
    launcher: str = "none",
    device: torch.device,
) -> Config:
    """Returns a copy of a resolved config with what the work dir and the device have told.

    ``seed`` is of the run that goes on, None begins a new one; the learning rate follows the
    ``images`` of a step of one process, None for the config's, and the number of ``processes``.
    """
    settled = copy.deepcopy(cfg)
    settled.resume = seed is not None
    if seed is not None:
        _set_seed(settled, seed)
    if images:
        settled.train_dataloader.batch_size = images
    scale_learning_rate(settled, processes)
    _set_for_runner(settled, launcher, device)
    return settled


def resolve_test(
    cfg: Config,
    *,
    classes: tuple[str, ...] | None,
    work_dir: Path | None,
    draw: dict[str, Any] | None = None,
    max_images: int | None = None,
    views: Views | None = None,
    agnostic_nms: bool = False,
    launcher: str = "none",
    device: torch.device,
) -> Config:
    """Returns a copy of a loaded config with all that a test implies.

    Without ``work_dir`` it is ``test`` in the config's own; ``draw`` are the arguments of the hook
    that draws, None draws nothing; only the first ``max_images`` are tested. With ``views`` the
    pipeline makes these of each image; with ``agnostic_nms`` boxes suppress those of other classes.
    """
    resolved = prepare_config(cfg, phases=("test",), classes=classes)
    resolved.work_dir = str(work_dir or default_work_dir(cfg) / "test")
    resolved.update(resume=False, load_from=None)  # the weights are loaded by the test, strictly
    if max_images is not None:
        resolved.test_dataloader.dataset.indices = max_images
    if views:
        for _, dataset in our_datasets(resolved.test_dataloader):
            dataset.pipeline = pipeline_of_views(dataset.pipeline, views)
    if agnostic_nms:
        suppress_across_classes(resolved.model)
    if draw is not None:
        hook = {"type": "fldet.DrawHook", **draw}
        resolved.custom_hooks = [*copy.deepcopy(resolved.get("custom_hooks") or []), hook]
    _check_seed(resolved)
    _set_for_runner(resolved, launcher, device)
    return resolved


def default_work_dir(cfg: Config) -> Path:
    """Returns ``work_dirs/`` and the name of the config file, or the config's own ``work_dir``."""
    return Path(cfg.get("work_dir") or Path("work_dirs", Path(cfg.filename or "run").stem))


def _require_iterations(cfg: Config) -> None:
    if "max_iters" not in (cfg.get("train_cfg") or {}):
        raise ConfigError(
            "train_cfg has no max_iters: fldet trains by iterations, not by epochs",
            expected="train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=90000, "
            "val_interval=10000), and schedules with by_epoch=False",
            hint="_base_ = 'fldet::_base_/schedules/schedule_1x.py' has both",
        )


def _accumulate(cfg: Config) -> None:
    """Hands the number to the optimizer; checkpoints and validations come between two steps."""
    there = cfg.optim_wrapper.get("accumulative_counts", 1)
    _check_accumulated("optim_wrapper.accumulative_counts", there, cfg)
    count: Any = cfg.get("accumulate")
    if count is None or count is False:
        return
    _check_accumulated("accumulate", count, cfg)
    if count == 1:
        return
    if there not in (1, count):
        raise ConfigError(
            f"accumulate is {count}, optim_wrapper.accumulative_counts {there}",
            expected="one of them",
        )
    cfg.optim_wrapper.accumulative_counts = count
    # torch's advice; the schedule counts batches, and the first step comes after some of them
    warnings.filterwarnings("ignore", "Detected call of .scheduler.step")
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    places = [("default_hooks.checkpoint.interval", checkpoint, "interval")]
    if cfg.get("val_cfg"):
        places.append(("train_cfg.val_interval", cfg.train_cfg, "val_interval"))
    for name, owner, key in places:
        every = owner.get(key) or 0
        if every > 0 and every % count:  # gradients that are not applied yet are not saved
            owner[key] = math.ceil(every / count) * count
            log.info("%s %d -> %d, a multiple of accumulate", name, every, owner[key])


def _check_accumulated(key: str, count: Any, cfg: Config) -> None:
    if not (isinstance(count, int) and not isinstance(count, bool) and count >= 1):
        raise ConfigError(f"{key} is {shorten(count)}", expected="batches of a step, at least 1")
    most = min(int(cfg.train_cfg.max_iters), _MOST_ACCUMULATED)
    if count > most:  # no step would see so many, but the learning rate would follow them
        raise ConfigError(
            f"{key} is {shorten(count)}, train_cfg.max_iters {cfg.train_cfg.max_iters}",
            expected=f"batches of a step, from 1 to {most}",
            hint="an iteration is one batch: a training of ten steps of 100 has max_iters=1000",
        )


def _set_seed(cfg: Config, seed: int) -> None:
    # not setdefault: MMEngine returns a copy of a dict that was not there
    cfg.randomness = {**(cfg.get("randomness") or {}), "seed": seed}


def _check_seed(cfg: Config) -> None:
    seed = (cfg.get("randomness") or {}).get("seed")
    if seed is not None and not is_seed(seed):
        raise ConfigError(
            f"the seed is {shorten(seed)}", expected=f"a whole number from 0 to {MOST_OF_A_SEED}"
        )


def _use_our_hooks(cfg: Config) -> None:
    """Lets configs that inherit MMDetection's runtime be resumed as exactly as ours."""
    hooks = cfg.get("default_hooks") or {}
    checkpoint, logger = hooks.get("checkpoint") or {}, hooks.get("logger") or {}
    if checkpoint.get("type") == "CheckpointHook" and checkpoint.get("by_epoch") is False:
        checkpoint["type"] = "fldet.CheckpointHook"
    if logger.get("type") == "LoggerHook":
        logger["type"] = "fldet.LoggerHook"
        logger.setdefault("log_metric_by_epoch", False)  # else all validations are of step 0


def _set_for_runner(cfg: Config, launcher: str, device: torch.device) -> None:
    """Sets what MMEngine's runner reads about its processes, and a name of the run's own.

    MMEngine keeps logs and figures by name and second: two runs that start within one second would
    share them.
    """
    cfg.launcher = launcher
    if launcher != "none" and device.type == "cpu":  # MMEngine would name a CUDA device
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    cfg.experiment_name = f"{Path(cfg.filename or 'run').stem}_{next(_run_numbers)}"
    if cfg.get("visualizer"):  # by one name, two runs would write into the first one's folder
        cfg.visualizer.name = cfg.experiment_name
