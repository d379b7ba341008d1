"""The focal loss and what others made of it: functions and modules that need torch alone.

``from fldet.losses import sigmoid_focal_loss``; docs/losses.md has a table of all. A config names
the losses of detectors, which are in ``fldet.models.losses`` and made of these.
"""

from fldet.losses.formulas import prior_bias
from fldet.losses.modules import (
    AsymmetricLoss,
    EqualizedFocalLoss,
    FocalLoss,
    FocalLossStar,
    GammaRamp,
    GHMLoss,
    Poly1FocalLoss,
    QualityFocalLoss,
    SoftmaxFocalLoss,
    VarifocalLoss,
)
from fldet.losses.sigmoid import sigmoid_focal_loss
from fldet.losses.softmax import softmax_focal_loss
from fldet.losses.variants import (
    asymmetric_loss,
    class_balanced_weights,
    equalized_focal_loss,
    ghm_loss,
    poly1_focal_loss,
    quality_focal_loss,
    sigmoid_focal_loss_star,
    varifocal_loss,
)

__all__ = [
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "sigmoid_focal_loss_star",
    "poly1_focal_loss",
    "asymmetric_loss",
    "quality_focal_loss",
    "varifocal_loss",
    "equalized_focal_loss",
    "ghm_loss",
    "class_balanced_weights",
    "prior_bias",
    "FocalLoss",
    "SoftmaxFocalLoss",
    "FocalLossStar",
    "Poly1FocalLoss",
    "AsymmetricLoss",
    "QualityFocalLoss",
    "VarifocalLoss",
    "EqualizedFocalLoss",
    "GHMLoss",
    "GammaRamp",
]
