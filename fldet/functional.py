"""The paper's formulas as pure functions of tensors. Equation numbers are the paper's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["sigmoid_focal_loss", "prior_bias"]


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0
) -> Tensor:
    """Returns the elementwise focal loss of raw logits (Eq. 5), not reduced.

    Everything is computed in log space from z = x for targets of 1 and z = -x for targets of 0:
    ``-log p_t = -logsigmoid(z)`` and ``(1 - p_t)^gamma = exp(gamma * logsigmoid(-z))``. So the loss
    and its gradient stay finite for any finite logit and any gamma, also below 1, where a power
    of ``1 - p_t`` has an infinite slope at ``p_t = 1``.

    Args:
        logits: (N, K) raw scores, or any shape; half types are computed in float32.
        targets: zeros and ones, of the same shape; a row of zeros is background.
        alpha: weight of the positive class, in [0, 1] (negatives get ``1 - alpha``); None means
            no balancing (Eq. 4).
        gamma: focusing strength, >= 0; 0 gives (balanced) cross entropy (Eq. 1 and 3).

    Returns:
        Loss in nats, >= 0, of the shape of ``logits``, in float32 or float64. Sum it and divide by
        the number of positives (Sec. 4.1). Empty in, empty out.

    Raises:
        ValueError: shapes differ, or alpha or gamma is out of range.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"expected targets of the shape of logits {tuple(logits.shape)}, "
            f"got {tuple(targets.shape)}"
        )
    _check_focusing(alpha, gamma)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    positive = targets.bool()
    z = torch.where(positive, logits, -logits)
    loss = -F.logsigmoid(z)  # -log(p_t), Eq. 1
    if gamma != 0:
        loss = loss * torch.exp(gamma * F.logsigmoid(-z))  # (1 - p_t)^gamma, Eq. 4
    if alpha is not None:
        loss = loss * torch.where(positive, alpha, 1 - alpha).to(loss.dtype)  # alpha_t, Eq. 5
    return loss


def prior_bias(prior_prob: float) -> float:
    """Returns the bias b = -log((1 - pi) / pi) at which every anchor scores pi (Sec. 4.1).

    Args:
        prior_prob: pi, in (0, 1); the paper uses 0.01.

    Raises:
        ValueError: ``prior_prob`` is not strictly between 0 and 1.
    """
    if not 0 < prior_prob < 1:
        raise ValueError(f"prior_prob must be in (0, 1), got {prior_prob}")
    return -math.log((1 - prior_prob) / prior_prob)


def _check_focusing(alpha: float | None, gamma: float) -> None:
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be None or in [0, 1], got {alpha}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be finite and >= 0, got {gamma}")
