"""Losses of one logit and its target in [0, 1], elementwise: K independent sigmoids.

Each is a function of logits and targets of the same shape, in float32 or float64, where a target of
0 or 1 is a label and one between them a share: what is lost is then expected over the two labels,
unless the loss says otherwise (quality focal and varifocal loss take it for a quality). All are
computed in log space, so that loss and gradient stay finite for any finite logit.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses.elements import Exponent, check_gamma, gamma_at, is_traced
from fldet.losses.formulas import cross_entropy, focal_loss

Factor = float | Tensor | None  # alpha: one number, or (K, 1) for (outer, K, inner) logits


def expected(
    of_x_t: Callable[[Tensor], Tensor], x: Tensor, t: Tensor, alpha: Factor = None
) -> Tensor:
    """Returns ``t alpha l(x) + (1 - t) (1 - alpha) l(-x)``, the balanced loss expected over labels.

    Args:
        of_x_t: l, the loss of a signed logit.
        x: logits.
        t: the probability that the label is 1.
        alpha: weight of label 1 (Eq. 3); None for no balancing.
    """
    hard, t = is_hard(t), t.to(x.dtype)
    if hard:
        loss = of_x_t(x * (2 * t - 1))
        return loss if alpha is None else loss * (t * alpha + (1 - t) * (1 - alpha))
    positive, negative = of_x_t(x), of_x_t(-x)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return torch.lerp(negative, positive, t)


def is_hard(t: Tensor) -> bool:
    """Returns whether there is nothing between 0 and 1, where it costs little to know."""
    if t.dtype == torch.bool:
        return True
    looks = t.device.type == "cpu" and not is_traced(t) and not t.requires_grad
    return looks and torch.equal(t, t.round())


def focal(x: Tensor, t: Tensor, *, alpha: Factor, gamma: Exponent) -> Tensor:
    """Returns the focal loss (Eq. 5)."""
    if isinstance(gamma, (int, float)) and gamma == 0 and alpha is None:
        return F.binary_cross_entropy_with_logits(x, t.to(x.dtype), reduction="none")
    return expected(lambda x_t: focal_of(x_t, gamma), x, t, alpha)


def focal_of(x_t: Tensor, gamma: Exponent) -> Tensor:
    """Returns the loss of Eq. 4 where gamma may be a tensor, or a function of p_t."""
    if isinstance(gamma, (int, float)):
        return focal_loss(x_t, gamma)
    gamma = gamma_at(gamma, torch.sigmoid(x_t))
    return cross_entropy(x_t) * torch.exp(gamma * F.logsigmoid(-x_t))


def check_asymmetric(gamma_positive: float, gamma_negative: float, clip: float) -> None:
    """Raises ValueError where a setting of ``asymmetric`` is out of range."""
    check_gamma(gamma_positive, "gamma_positive")
    check_gamma(gamma_negative, "gamma_negative")
    if not 0 <= clip < 1:
        raise ValueError(f"clip must be in [0, 1), got {clip}")


def asymmetric(
    x: Tensor, t: Tensor, *, gamma_positive: float, gamma_negative: float, clip: float
) -> Tensor:
    """Returns the asymmetric loss (Ridnik et al., arXiv 2009.14119), expected over labels.

    Positives: ``-(1 - p)^gamma_positive log(p)``; negatives: ``-m^gamma_negative log(1 - m)`` with
    the shifted probability ``m = max(p - clip, 0)``.
    """
    positive = focal_loss(x, gamma_positive)
    if clip == 0:
        negative = focal_loss(-x, gamma_negative)
    else:
        m = torch.sigmoid(x) - clip
        counts = m > 0
        m = torch.where(counts, m, 0.5)  # the root of 0 has no slope
        is_small = m < 0.5  # else 1 - m is the sum of what is left of p and of the clip
        log_rest = torch.where(
            is_small,
            torch.log1p(-torch.where(is_small, m, 0)),
            torch.log(torch.sigmoid(-x) + clip),
        )
        negative = torch.where(counts, -(m**gamma_negative) * log_rest, 0)
    if is_hard(t):
        return torch.where(t > 0, positive, negative)
    return torch.lerp(negative, positive, t.to(x.dtype))


def quality_focal(x: Tensor, t: Tensor, *, beta: float) -> Tensor:
    """Returns ``|t - p|^beta`` times cross entropy (Li et al., arXiv 2006.04388).

    The target of an object is a quality, the IoU of its box; the loss is least where p equals it.
    """
    t = t.to(x.dtype)
    loss = expected(cross_entropy, x, t)
    if beta == 0:
        return loss
    # log |t - p|: where a side is 0 or 1 the difference is a probability, known to all digits
    tiny = torch.finfo(x.dtype).tiny
    between = torch.log((t - torch.sigmoid(x)).abs().clamp(min=tiny))
    away = torch.where(t == 0, F.logsigmoid(x), torch.where(t == 1, F.logsigmoid(-x), between))
    return loss * torch.exp(beta * away)


def varifocal(
    x: Tensor, t: Tensor, *, alpha: float, gamma: float, iou_weighted: bool = True
) -> Tensor:
    """Returns the varifocal loss (Zhang et al., arXiv 2008.13367).

    A target q > 0 is the quality of an object: (q times) cross entropy. Where it is 0:
    ``-alpha p^gamma log(1 - p)``.
    """
    t = t.to(x.dtype)
    objects = expected(cross_entropy, x, t)
    if iou_weighted:
        objects = t * objects
    return torch.where(t > 0, objects, alpha * focal_loss(-x, gamma))


def gradient_part(x: Tensor, t: Tensor, bins: int) -> Tensor:
    """Returns in which of some equal parts of [0, 1] the norm of the gradient, ``|p - t|``, is."""
    away = (torch.sigmoid(x) - t.to(x.dtype)).abs()
    return (away * bins).long().clamp(0, bins - 1)


def weighted_by_gradient(x: Tensor, t: Tensor, *, weights: Tensor) -> Tensor:
    """Returns cross entropy times the weight of the part that its gradient is in (GHM-C)."""
    part = gradient_part(x.detach(), t, len(weights))
    loss = expected(cross_entropy, x, t)
    return loss * weights[part]
