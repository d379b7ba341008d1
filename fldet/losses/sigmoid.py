"""The focal loss of K independent sigmoids, which can be called as torchvision's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses import binary
from fldet.losses.elements import (
    Alpha,
    Gamma,
    Piece,
    check_gamma,
    check_reduction,
    compute_dtype,
    exponent_of,
    factor_of,
    wanted_by,
)
from fldet.losses.examples import EVERYTHING, Examples
from fldet.losses.formulas import Curve
from fldet.losses.fused import blocks_sum
from fldet.losses.fused_torch import shared_sum, signed_sum, sparse_sum, terms_and_slopes
from fldet.losses.sweep import total


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: Alpha | Tensor = 0.25,
    gamma: Gamma = 2.0,
    reduction: str = "none",
    *,
    weight: Tensor | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
) -> Tensor:
    """Returns the alpha-balanced focal loss of K independent sigmoids (Eq. 5).

    A target t between 0 and 1 is the probability of an object, and the loss is expected over both
    labels: ``t alpha (1 - p)^gamma (-log p) + (1 - t) (1 - alpha) p^gamma (-log(1 - p))``. For
    targets of 0 and 1, integers or not, this is Eq. 5, and torchvision's function.

    Args:
        inputs: logits of any shape; half types are computed in float32.
        targets: of the shape of the logits, in [0, 1]; or integer labels of that shape without the
            dimension of the classes, 0..K-1 for objects and K for background.
        alpha: weight of objects, in [0, 1]; the rest weighs ``1 - alpha``. One number, or one for
            each class. None or -1: both weigh 1 (Eq. 4). It balances foreground against background;
            how rare a class is belongs into ``class_weight``.
        gamma: focusing strength, >= 0; 0 is (balanced) cross entropy. A number, one for each
            class, or a function of p_t (detached, of the shape of the logits or a piece of them).
        reduction: ``none``; ``sum``; ``mean`` over the logits that count; ``positives``, the sum
            over the sum of the targets, at least 1 (Sec. 4.1).
        weight: factor of each logit, or of each example (the shape of the labels).
        class_weight: factor of each class, on objects and the rest.
        ignore_index: the target of what does not count; None if there is none.
        class_dim: the dimension of the classes; by default the last, or 1 where labels fit that.

    Returns:
        In nats, >= 0, float32 or float64: of the shape of the logits, or a scalar. Reduced, its
        gradient is made with it and cannot be differentiated again; that of ``none`` can.

    Raises:
        ValueError: shapes do not fit, nothing is broadcast; or an argument, a label or a target is
            out of range. Labels and targets are not looked at under ``torch.compile`` and ``vmap``.
    """
    check_reduction(reduction)
    check_gamma(gamma)
    examples = Examples(
        inputs,
        targets,
        weight=weight,
        class_weight=class_weight,
        ignore_index=ignore_index,
        class_dim=class_dim,
    )
    factor = factor_of(alpha, examples.layout, inputs)
    exponent = exponent_of(gamma, examples.layout, inputs)
    formula = partial(binary.focal, alpha=factor, gamma=exponent)
    settings = factor, wanted_by(exponent, inputs)
    if not isinstance(exponent, (int, float)):
        return examples.loss(formula, reduction, settings=settings)
    if exponent == 0 and factor is None and _suits_torch(examples, reduction):
        return _cross_entropy(examples, reduction)
    curve = Curve(power=float(exponent))
    if reduction != "none" and _suits_kernel(examples) and examples.can_sweep(factor):
        divisor = examples.divisor(reduction)
        return total([partial(_kernel_sum, examples, factor, curve, divisor)], [inputs])
    return examples.loss(formula, reduction, OfCurve(examples, factor, curve), settings)


def _suits_torch(examples: Examples, reduction: str) -> bool:
    """Returns whether cross entropy is what torch's own function gives, to the bit."""
    return (
        reduction != "positives"
        and examples.inputs.numel() > 0
        and examples.class_weight is None
        and not examples.ignores
    )


def _cross_entropy(examples: Examples, reduction: str) -> Tensor:
    """Returns torch's binary cross entropy."""
    layout, dtype = examples.layout, compute_dtype(examples.inputs)
    shares, weight = examples.shares(), examples.weight
    if weight is not None:
        weight = layout.restored(weight.expand(-1, layout.num_classes, -1)).to(dtype)
    return F.binary_cross_entropy_with_logits(
        examples.inputs.to(dtype), layout.restored(shares).to(dtype), weight, reduction=reduction
    )


def _suits_kernel(examples: Examples) -> bool:
    """Returns whether labels and weights are those that the kernels of ``fused`` take."""
    weight = examples.weight
    return (
        examples.has_labels
        and (examples.inputs.is_cuda or examples.layout.inner == 1)
        and examples.class_weight is None
        and not examples.ignores
        and (weight is None or weight.shape[1] == 1)
    )


def _kernel_sum(
    examples: Examples,
    alpha: float | Tensor | None,
    curve: Curve,
    divisor: Tensor | float,
    logits: Tensor,
    need_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Returns the sum for labels, and its gradient; see ``fldet.losses.fused``."""
    layout, labels = examples.layout, examples.targets
    weight = torch.ones((), device=logits.device) if examples.weight is None else examples.weight
    factor = (weight.to(compute_dtype(logits)) / divisor).expand_as(labels)
    blocks = layout.blocks(logits).contiguous()
    value, grad = blocks_sum(blocks, labels, factor, curve, alpha, need_grad)
    return value, None if grad is None else layout.restored(grad)


@dataclass(frozen=True)
class OfCurve:
    """The closed form of a sum over logits, expected over both labels.

    Attributes:
        examples: the logits, targets and weights.
        alpha: weight of objects; None for no balancing.
        curve: the loss of a signed logit.
    """

    examples: Examples
    alpha: float | Tensor | None
    curve: Curve

    def __call__(self, x: Tensor, piece: Piece, scale: Tensor, grad: Tensor | None) -> Tensor:
        """Returns the sum over a piece, and fills its gradient; see ``by_pieces``."""
        counts = self.examples.counts(piece)
        t, positive, negative = self._parts(piece, scale)
        if counts is not None:  # what does not count may be anything, NaN too
            x, t = torch.where(counts, x, 0), torch.where(counts, t, torch.zeros_like(t))
            positive, negative = (torch.where(counts, factor, 0) for factor in (positive, negative))
        if not (positive.dim() or negative.dim()) and x.is_contiguous() and t.is_contiguous():
            value = sparse_sum(x, t, positive, negative, self.curve, grad)
            if value is not None:
                return value
        if binary.is_hard(t):
            t = t.to(x.dtype)
            factor = t * (positive - negative) + negative
            return signed_sum(x, 1 - 2 * t, factor, self.curve, grad)
        return shared_sum(x, t.to(x.dtype), positive, negative, self.curve, grad)

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss of each logit, and its derivative; see ``traced_total``."""
        parts = self._parts(EVERYTHING, torch.ones((), dtype=x.dtype, device=x.device))
        terms, slopes = terms_and_slopes(x, *parts, self.curve)
        counts = self.examples.counts()
        if counts is None:
            return terms, slopes
        return torch.where(counts, terms, 0), torch.where(counts, slopes, 0)

    def _parts(self, piece: Piece, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the targets of a piece, and what its positives and negatives weigh."""
        factor, alpha = self.examples.factor(piece), self.alpha
        scale = scale if factor is None else scale * factor
        both = (scale, scale) if alpha is None else (scale * alpha, scale * (1 - alpha))
        return self.examples.shares(piece), *both
