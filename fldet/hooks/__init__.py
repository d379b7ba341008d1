"""What is watched while a loop runs."""

from fldet.hooks.draw import DrawHook
from fldet.hooks.progress import ProgressHook
from fldet.hooks.val_loss import ValLossHook

__all__ = ["DrawHook", "ProgressHook", "ValLossHook"]
