"""What is watched while a loop runs."""

from fldet.hooks.broken_images import BrokenImagesHook
from fldet.hooks.buffers import BuffersHook
from fldet.hooks.checkpoint import CheckpointHook
from fldet.hooks.draw import DrawHook
from fldet.hooks.early_end import EarlyEndHook, EarlyStoppingHook, TimeBudgetHook
from fldet.hooks.ema import EMAHook
from fldet.hooks.logger import LoggerHook
from fldet.hooks.nonfinite import NonFiniteHook
from fldet.hooks.progress import ProgressHook
from fldet.hooks.resume import ResumeHook
from fldet.hooks.stop import StopHook
from fldet.hooks.val_loss import ValLossHook

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
