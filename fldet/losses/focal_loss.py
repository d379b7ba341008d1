"""The focal loss, and FL* of the appendix."""

from functools import partial

from fldet.losses.formulas import Alpha, focal_loss, focal_loss_star
from fldet.losses.fused import Curve
from fldet.losses.sigmoid_losses import SigmoidLoss
from fldet.registry import MODELS


@MODELS.register_module()
class FocalLoss(SigmoidLoss):
    """Alpha-balanced focal loss (Eq. 5; Eq. 4 with ``alpha=None``).

    Args:
        gamma: focusing strength, >= 0; 0 is cross entropy.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        use_sigmoid, loss_weight, compiled: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or gamma or an alpha is out of range.
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: Alpha = 0.25,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        compiled: bool = False,
    ) -> None:
        super().__init__(
            partial(focal_loss, gamma=gamma),
            alpha=alpha,
            use_sigmoid=use_sigmoid,
            loss_weight=loss_weight,
            curve=Curve(power=gamma),
            compiled=compiled,
        )
        self.gamma = gamma

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"gamma={self.gamma}, {super().extra_repr()}"


@MODELS.register_module()
class FocalLossStar(SigmoidLoss):
    """FL*, a loss of nearly the same shape with two parameters (Appendix A, Table 3).

    Args:
        gamma: steepness, > 0.
        beta: shift of the curve, in logits.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        use_sigmoid, loss_weight, compiled: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or a parameter is out of range.
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        beta: float = 1.0,
        alpha: Alpha = 0.25,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        compiled: bool = False,
    ) -> None:
        super().__init__(
            partial(focal_loss_star, gamma=gamma, beta=beta),
            alpha=alpha,
            use_sigmoid=use_sigmoid,
            loss_weight=loss_weight,
            curve=Curve(gain=gamma, shift=beta),
            compiled=compiled,
        )
        self.gamma = gamma
        self.beta = beta

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"gamma={self.gamma}, beta={self.beta}, {super().extra_repr()}"
