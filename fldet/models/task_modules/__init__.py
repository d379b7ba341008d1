"""What a head needs besides layers: anchors, how they get their labels, and which of them count."""

from fldet.models.task_modules.anchor_generator import AnchorGenerator
from fldet.models.task_modules.bipartite_assigner import BipartiteAssigner
from fldet.models.task_modules.default_boxes import DefaultBoxes
from fldet.models.task_modules.max_iou_assigner import MaxIoUAssigner
from fldet.models.task_modules.miners import OHEM, HardNegatives
from fldet.models.task_modules.torchvision_anchors import TorchvisionAnchorGenerator

__all__ = [
    "OHEM",
    "AnchorGenerator",
    "BipartiteAssigner",
    "DefaultBoxes",
    "HardNegatives",
    "MaxIoUAssigner",
    "TorchvisionAnchorGenerator",
]
