"""What the paper compares the focal loss with: cross entropy, and the hinge loss it gave up."""

from functools import partial

from fldet.losses.formulas import Alpha, cross_entropy, hinge_loss
from fldet.losses.fused import Curve
from fldet.losses.sigmoid_losses import SigmoidLoss
from fldet.registry import MODELS


@MODELS.register_module()
class CrossEntropyLoss(SigmoidLoss):
    """Cross entropy (Eq. 1), balanced by alpha (Eq. 3) if one is given.

    Args:
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        use_sigmoid, loss_weight, compiled: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or an alpha is outside [0, 1].
    """

    def __init__(
        self,
        *,
        alpha: Alpha = None,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        compiled: bool = False,
    ) -> None:
        super().__init__(
            cross_entropy,
            alpha=alpha,
            use_sigmoid=use_sigmoid,
            loss_weight=loss_weight,
            curve=Curve(),
            compiled=compiled,
        )


@MODELS.register_module()
class HingeLoss(SigmoidLoss):
    """Hinge loss on p_t (Sec. 5.1): a negative control, which the paper found unstable.

    Args:
        threshold: the p_t above which an example costs nothing, in (0, 1].
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        use_sigmoid, loss_weight: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or the threshold or an alpha is out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        alpha: Alpha = None,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            partial(hinge_loss, threshold=threshold),
            alpha=alpha,
            use_sigmoid=use_sigmoid,
            loss_weight=loss_weight,
        )
        self.threshold = threshold

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"threshold={self.threshold}, {super().extra_repr()}"
