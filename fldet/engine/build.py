"""Models and runners from configs."""

import contextlib
import itertools
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import nn

from fldet.data.stream import BatchStream, NumberedBatches, exact_loader
from fldet.engine.pretrained import explained_downloads
from fldet.registry import MODELS

# Printed by MMEngine on every run, about nothing that a user can change.
NOISE = ("FileClient", "HardDiskBackend", "Fast sampler-level resume is unavailable")

_run_numbers = itertools.count(1)


def build_model(cfg: Config) -> nn.Module:
    """Returns the model of a config with its initial weights, in training mode, on the CPU.

    Pretrained weights are loaded (and downloaded) where the config names them in ``init_cfg``.

    Args:
        cfg: as ``load_config`` returned it; only ``model`` and ``default_scope`` are read.

    Raises:
        CheckpointError: pretrained weights cannot be downloaded.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = MODELS.build(cfg.model)
    with explained_downloads():
        model.init_weights()
    return model


class FldetRunner(Runner):
    """MMEngine's Runner, whose log goes to its file; the console gets warnings, on stderr."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Returns the logger of the run with a quieter console."""
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger

    def build_train_loop(self, loop: Any) -> BaseLoop:
        """Returns the loop with samples whose order and random numbers follow from the seed."""
        loop = super().build_train_loop(loop)
        if isinstance(loop, IterBasedTrainLoop) and not isinstance(
            loop.dataloader.batch_sampler, NumberedBatches
        ):
            loop.dataloader = exact_loader(loop.dataloader, self.seed, self.rank)
            loop.dataloader_iterator = BatchStream(loop.dataloader)
        return loop

    def _init_model_weights(self) -> None:
        with explained_downloads():
            super()._init_model_weights()


def build_runner(cfg: Config, launcher: str, device: torch.device) -> FldetRunner:
    """Returns a runner for a prepared config; its work dir is made and the config written there.

    Every runner gets a name of its own: MMEngine keeps logs and figures by name and second, and two
    runs that start within one second would share them.
    """
    cfg.launcher = launcher
    if launcher != "none" and device.type == "cpu":  # MMEngine would name a CUDA device
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    cfg.experiment_name = f"{Path(cfg.filename or 'run').stem}_{next(_run_numbers)}"
    if cfg.get("visualizer"):  # by one name, two runs would write into the first one's folder
        cfg.visualizer.name = cfg.experiment_name
    quiet_console(MMLogger.get_instance("mmengine"))
    with contextlib.redirect_stdout(sys.stderr):
        return FldetRunner.from_cfg(cfg)


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model itself, where it may be wrapped for several processes."""
    inner: nn.Module = getattr(model, "module", model)
    return inner


def quiet_console(logger: MMLogger) -> None:
    """Sends what the logger shows on the console to stderr, from warnings upwards."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setStream(sys.stderr)
            handler.setLevel(max(handler.level, logging.WARNING))
            handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in NOISE)
