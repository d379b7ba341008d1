"""The focal loss of K independent sigmoids, which can be called as torchvision's."""

from collections.abc import Sequence
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
from fldet.losses.examples import Examples
from fldet.losses.formulas import Curve
from fldet.losses.fused import blocks_sum
from fldet.losses.fused_torch import shared_sum, signed_sum, sparse_sum
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
    closed = partial(closed_sum, examples, factor, curve)
    return examples.loss(formula, reduction, closed, settings)


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


def closed_sum(
    examples: Examples,
    alpha: float | Tensor | None,
    curve: Curve,
    x: Tensor,
    piece: Piece,
    scale: Tensor,
    grad: Tensor | None,
) -> Tensor:
    """Returns the sum over a piece, expected over both labels, and fills its gradient."""
    t, factor, counts = examples.shares(piece), examples.factor(piece), examples.counts(piece)
    if counts is not None:
        x = torch.where(counts, x, 0)
        t = torch.where(counts, t, torch.zeros_like(t))
        factor = counts.to(x.dtype) if factor is None else torch.where(counts, factor, 0)
    scale = scale if factor is None else scale * factor
    positive, negative = (scale, scale) if alpha is None else (scale * alpha, scale * (1 - alpha))
    if not (positive.dim() or negative.dim()) and x.is_contiguous() and t.is_contiguous():
        value = sparse_sum(x, t, positive, negative, curve, grad)
        if value is not None:
            return value
    if binary.is_hard(t):
        t = t.to(x.dtype)
        return signed_sum(x, 1 - 2 * t, t * (positive - negative) + negative, curve, grad)
    return shared_sum(x, t.to(x.dtype), positive, negative, curve, grad)
