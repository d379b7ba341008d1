"""RetinaNet's own parts; the backbone, the pyramid and the detector are MMDetection's."""

import fldet.registry  # noqa: F401  (before all that imports mmdet)
from fldet.losses.modules import CrossEntropyLoss, FocalLoss, FocalLossStar, HingeLoss
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
from fldet.registry import MODELS

for _part in (
    *(FocalLoss, FocalLossStar, CrossEntropyLoss, HingeLoss),
    *(CountOverRanks, CountPerRank, CountPlusOne, MovingAverageCount),
):
    MODELS.register_module(module=_part)  # fldet.losses knows torch alone

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
