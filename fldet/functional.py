"""The formulas of the losses, which have moved to ``fldet.losses``."""

from fldet.moved import moved

__getattr__ = moved(
    __name__,
    {
        "fldet.losses": ("sigmoid_focal_loss",),
        "fldet.losses.elements": ("Alpha",),
        "fldet.losses.formulas": (
            *("Curve", "cross_entropy", "focal_loss", "focal_loss_star", "hinge_loss"),
            *("signed_logits", "balance", "prior_bias"),
        ),
    },
)
