"""What is watched while a loop runs."""

from fldet.engine.hooks.broken_images import BrokenImagesHook
from fldet.engine.hooks.buffers import BuffersHook
from fldet.engine.hooks.checkpoint import CheckpointHook
from fldet.engine.hooks.draw import DrawHook
from fldet.engine.hooks.early_end import EarlyEndHook, EarlyStoppingHook, TimeBudgetHook
from fldet.engine.hooks.ema import EMAHook
from fldet.engine.hooks.logger import LoggerHook
from fldet.engine.hooks.nonfinite import NonFiniteHook
from fldet.engine.hooks.progress import ProgressHook
from fldet.engine.hooks.resume import ResumeHook
from fldet.engine.hooks.stop import StopHook
from fldet.engine.hooks.val_loss import ValLossHook

__all__ = [
    "BrokenImagesHook",
    "BuffersHook",
    "CheckpointHook",
    "DrawHook",
    "EMAHook",
    "EarlyEndHook",
    "EarlyStoppingHook",
    "LoggerHook",
    "NonFiniteHook",
    "ProgressHook",
    "ResumeHook",
    "StopHook",
    "TimeBudgetHook",
    "ValLossHook",
]
