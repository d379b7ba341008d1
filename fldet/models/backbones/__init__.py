"""Networks that turn images into maps."""

from fldet.models.backbones.darknet19 import DarkNet19

__all__ = ["DarkNet19"]
