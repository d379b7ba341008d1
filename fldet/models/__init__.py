"""RetinaNet's own parts; the backbone, the pyramid and the detector are MMDetection's."""

from fldet.losses.baselines import CrossEntropyLoss, HingeLoss
from fldet.losses.focal_loss import FocalLoss, FocalLossStar
from fldet.losses.normalizers import (
    CountOverRanks,
    CountPerRank,
    CountPlusOne,
    MovingAverageCount,
)
from fldet.models.dense_heads.retina_head import RetinaHead
from fldet.models.task_modules.anchor_generator import AnchorGenerator
from fldet.models.task_modules.max_iou_assigner import MaxIoUAssigner
from fldet.models.task_modules.miners import OHEM, HardNegatives

__all__ = [
    "OHEM",
    "AnchorGenerator",
    "CountOverRanks",
    "CountPerRank",
    "CountPlusOne",
    "CrossEntropyLoss",
    "FocalLoss",
    "FocalLossStar",
    "HardNegatives",
    "HingeLoss",
    "MaxIoUAssigner",
    "MovingAverageCount",
    "RetinaHead",
]
