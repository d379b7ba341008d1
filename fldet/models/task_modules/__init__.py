"""What a head needs besides layers: anchors, and how they get their labels."""

from fldet.models.task_modules.anchor_generator import AnchorGenerator

__all__ = ["AnchorGenerator"]
