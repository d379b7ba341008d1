"""What a head needs besides layers: anchors, and how they get their labels."""

from fldet.models.task_modules.anchor_generator import AnchorGenerator
from fldet.models.task_modules.max_iou_assigner import MaxIoUAssigner

__all__ = ["AnchorGenerator", "MaxIoUAssigner"]
