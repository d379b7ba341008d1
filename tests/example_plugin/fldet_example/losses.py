"""The focal loss with one more term of its series in 1 - p_t."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses.elements import Alpha
from fldet.losses.formulas import focal_loss
from fldet.models.losses.sigmoid_loss import SigmoidLoss
from fldet_example.registry import MODELS


def poly_focal_loss(x_t: Tensor, gamma: float, epsilon: float) -> Tensor:
    """Returns ``FL + epsilon (1 - p_t)^(gamma + 1)`` (Leng et al., ICLR 2022), elementwise, >= 0.

    FL is ``(1 - p_t)^gamma`` times the series of ``(1 - p_t)^j / j``, j = 1, 2, ...; epsilon is
    added to the coefficient of j = 1.

    Args:
        x_t: signed logits of any shape; see ``fldet.losses.formulas``.
        gamma: focusing strength, >= 0.
        epsilon: >= -1, so that no coefficient is negative; 0 is the focal loss.

    Raises:
        ValueError: gamma or epsilon is out of range.
    """
    if not epsilon >= -1:
        raise ValueError(f"epsilon must be >= -1, got {epsilon}")
    return focal_loss(x_t, gamma) + epsilon * torch.exp((gamma + 1) * F.logsigmoid(-x_t))


@MODELS.register_module()
class PolyFocalLoss(SigmoidLoss):
    """``poly_focal_loss`` over K sigmoids; alpha, labels and divisor as in ``fldet.FocalLoss``."""

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        epsilon: float = 1.0,
        alpha: Alpha = 0.25,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            partial(poly_focal_loss, gamma=gamma, epsilon=epsilon),
            alpha=alpha,
            use_sigmoid=use_sigmoid,
            loss_weight=loss_weight,
        )
