"""The paper's formulas as pure functions of tensors. Equation numbers are the paper's.

Every loss is written as a function of ``x_t = y * x`` (Appendix A), the logit with the sign that
makes right answers positive: ``y`` is 1 for the class of an object and -1 for every other class,
and ``p_t = sigmoid(x_t)`` (Eq. 2). All of them are computed from logits in log space, so that loss
and gradient stay finite for any finite logit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses.elements import Alpha, check_alpha, check_integers

__all__ = [
    "Curve",
    "cross_entropy",
    "focal_loss",
    "focal_loss_star",
    "poly1_focal_loss",
    "hinge_loss",
    "signed_logits",
    "balance",
    "prior_bias",
]

# --- losses as functions of x_t ---


def cross_entropy(x_t: Tensor) -> Tensor:
    """Returns ``-log(p_t)`` (Eq. 1), elementwise, in nats, >= 0.

    Args:
        x_t: signed logits of any shape; see ``signed_logits``.
    """
    return -F.logsigmoid(x_t)


def focal_loss(x_t: Tensor, gamma: float) -> Tensor:
    """Returns ``-(1 - p_t)^gamma log(p_t)`` (Eq. 4), elementwise, in nats, >= 0.

    The factor is a power of ``sigmoid(-x_t)`` for a gamma of 1, 2 or 3, and else
    ``exp(gamma * logsigmoid(-x_t))``: a power has an infinite slope at ``p_t = 1`` for gamma below
    1.

    Args:
        x_t: signed logits of any shape.
        gamma: focusing strength, >= 0; 0 is cross entropy.

    Raises:
        ValueError: gamma is negative or not finite.
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be finite and >= 0, got {gamma}")
    if gamma == 0:
        return cross_entropy(x_t)
    if gamma in (1, 2, 3):
        return cross_entropy(x_t) * torch.sigmoid(-x_t) ** gamma
    return cross_entropy(x_t) * torch.exp(gamma * F.logsigmoid(-x_t))


def focal_loss_star(x_t: Tensor, gamma: float, beta: float) -> Tensor:
    """Returns FL*: ``-log(sigmoid(gamma * x_t + beta)) / gamma`` (Appendix A), elementwise, >= 0.

    Args:
        x_t: signed logits of any shape.
        gamma: steepness, > 0.
        beta: shift of the curve, in logits.

    Raises:
        ValueError: gamma is not positive, or a number is not finite.
    """
    if not (0 < gamma < math.inf and math.isfinite(beta)):
        raise ValueError(f"gamma must be > 0 and beta finite, got {gamma} and {beta}")
    return cross_entropy(gamma * x_t + beta) / gamma


def poly1_focal_loss(x_t: Tensor, gamma: float, epsilon: float) -> Tensor:
    """Returns ``FL + epsilon (1 - p_t)^(gamma + 1)`` (Leng et al., arXiv 2204.12511), >= 0.

    Args:
        x_t: signed logits of any shape.
        gamma: focusing strength, >= 0.
        epsilon: >= -1, so that no coefficient of the series in ``1 - p_t`` is negative.

    Raises:
        ValueError: gamma or epsilon is out of range.
    """
    if not -1 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be finite and >= -1, got {epsilon}")
    return focal_loss(x_t, gamma) + epsilon * torch.exp((gamma + 1) * F.logsigmoid(-x_t))


def hinge_loss(x_t: Tensor, threshold: float = 0.5) -> Tensor:
    """Returns ``max(0, threshold - p_t)`` (Sec. 5.1, "Hinge Loss"; DEVIATION D17), elementwise.

    The paper tried it without success ("unstable"); it is here as a negative control.

    Args:
        x_t: signed logits of any shape.
        threshold: the p_t above which an example costs nothing, in (0, 1]; not stated in the paper.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    return F.relu(threshold - torch.sigmoid(x_t))


@dataclass(frozen=True)
class Curve:
    """A loss of x_t: ``-sigmoid(-u)^power log(sigmoid(u)) / gain`` with ``u = gain * x_t + shift``.

    Cross entropy (Eq. 1) is the default, the focal loss (Eq. 4) has ``power`` gamma, and FL*
    (Appendix A) has ``gain`` gamma and ``shift`` beta. A loss of this form has a gradient by hand
    in ``fldet.losses.fused``.

    Attributes:
        power: gamma of the focal loss, >= 0.
        gain: gamma of FL*, > 0; with a power it must be 1.
        shift: beta of FL*, in logits; with a power it must be 0.
    """

    power: float = 0.0
    gain: float = 1.0
    shift: float = 0.0

    def __call__(self, x_t: Tensor) -> Tensor:
        """Returns the loss of signed logits, elementwise, in nats, >= 0."""
        if (self.gain, self.shift) == (1, 0):
            return focal_loss(x_t, self.power)
        return focal_loss_star(x_t, self.gain, self.shift)


# --- from logits and targets to x_t and alpha_t: kept for ``fldet.functional``, for one release ---


def signed_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns ``x_t = y * x`` (Appendix A), of the shape of ``logits``, in float32 or float64.

    Args:
        logits: (..., K) raw scores; half types are computed in float32.
        targets: (...) integer labels, 0..K-1 for objects and K for background; or zeros and ones
            of the shape of ``logits``, a row of zeros for background.

    Raises:
        ValueError: shapes do not fit, a label is no integer or outside 0..K, or there is something
            between 0 and 1.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    targets = hard_targets(targets, logits.shape)
    if targets.shape == logits.shape:
        return torch.where(targets, logits, -logits)
    positive = _positive_entries(logits, targets)
    x_t = -logits
    x_t[positive] = logits[positive]
    return x_t


def balance(loss: Tensor, targets: Tensor, alpha: Alpha) -> Tensor:
    """Returns ``alpha_t * loss`` (Eq. 3 and 5): alpha for objects, ``1 - alpha`` for the rest.

    Args:
        loss: (..., K) elementwise loss.
        targets: as in ``signed_logits``.
        alpha: weight of the positive class, in [0, 1]; one for each of the K classes; or None for
            no balancing (Eq. 1 and 4).

    Raises:
        ValueError: shapes do not fit, or an alpha is outside [0, 1].
    """
    if alpha is None:
        return loss
    check_alpha(alpha, loss.shape[-1])
    of_class = loss.new_tensor(alpha).expand(loss.shape[-1:])
    targets = hard_targets(targets, loss.shape)
    if targets.shape == loss.shape:
        return loss * torch.where(targets, of_class, 1 - of_class)
    positive = _positive_entries(loss, targets)
    alpha_t = (1 - of_class).repeat(*loss.shape[:-1], 1)
    alpha_t[positive] = of_class[positive[-1]]
    return loss * alpha_t


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


def hard_targets(targets: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns zeros and ones as booleans, labels as they are; see ``signed_logits``.

    Raises:
        ValueError: ``targets`` has the shape of the logits, and something else than 0 and 1.
    """
    if targets.shape != tuple(shape) or targets.dtype == torch.bool:
        return targets
    is_one = targets == 1
    if not torch.equal(is_one.to(targets.dtype), targets):
        raise ValueError("targets of the shape of the logits must be 0 or 1, not between or beyond")
    return is_one


def _positive_entries(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Returns the index of the one entry of every object's row that belongs to its class."""
    num_classes = logits.shape[-1]
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"expected labels of shape {tuple(logits.shape[:-1])} or zeros and ones of shape "
            f"{tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    check_integers(labels)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) <= num_classes:
        raise ValueError(
            f"labels must be in 0..{num_classes} ({num_classes} is background), "
            f"got {int(labels.min())}..{int(labels.max())}"
        )
    rows = (labels < num_classes).nonzero(as_tuple=True)
    return (*rows, labels[rows])
