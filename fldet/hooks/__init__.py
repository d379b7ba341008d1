"""What is watched while a loop runs."""

from fldet.hooks.broken_images import BrokenImagesHook
from fldet.hooks.draw import DrawHook
from fldet.hooks.progress import ProgressHook

__all__ = ["BrokenImagesHook", "DrawHook", "ProgressHook"]
