"""RetinaNet's own parts; the backbone, the pyramid and the detector are MMDetection's."""

from fldet.models.dense_heads.retina_head import RetinaHead
from fldet.models.losses.focal_loss import FocalLoss
from fldet.models.task_modules.anchor_generator import AnchorGenerator

__all__ = ["AnchorGenerator", "FocalLoss", "RetinaHead"]
