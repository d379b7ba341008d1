"""What others made of the focal loss, over K sigmoids, in the conventions of this package.

Every function takes ``reduction``, ``weight``, ``class_weight``, ``ignore_index`` and ``class_dim``
as ``sigmoid_focal_loss`` does, and returns and raises what it does.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fldet.losses import binary, formulas
from fldet.losses.elements import (
    Alpha,
    Piece,
    check_gamma,
    compute_dtype,
    factor_of,
    of_classes,
    sum_dtype,
)
from fldet.losses.examples import EVERYTHING, Examples, Formula
from fldet.losses.formulas import Curve
from fldet.losses.sigmoid import OfCurve
from fldet.losses.sweep import PIECE


def sigmoid_focal_loss_star(
    inputs: Tensor,
    targets: Tensor,
    *,
    alpha: Alpha | Tensor = 0.25,
    gamma: float = 2.0,
    beta: float = 1.0,
    reduction: str = "none",
    **options: Any,
) -> Tensor:
    """Returns FL*, ``-log(sigmoid(gamma x_t + beta)) / gamma`` (Appendix A), balanced by alpha.

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: of them, or labels.
        alpha: weight of objects.
        gamma: steepness, > 0.
        beta: shift of the curve, in logits.
        reduction: see ``sigmoid_focal_loss``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``.
    """
    examples = Examples(inputs, targets, **options)
    curve = Curve(gain=gamma, shift=beta)
    curve(torch.empty(0))  # refuses a setting that is out of range
    factor = factor_of(alpha, examples.layout, inputs)
    formula = partial(binary.expected, curve, alpha=factor)
    return examples.loss(formula, reduction, OfCurve(examples, factor, curve), [factor])


def poly1_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    *,
    alpha: Alpha | Tensor = 0.25,
    gamma: float = 2.0,
    epsilon: float = 1.0,
    reduction: str = "none",
    **options: Any,
) -> Tensor:
    """Returns ``FL + epsilon (1 - p_t)^(gamma + 1)`` (Leng et al., arXiv 2204.12511).

    The focal loss is ``(1 - p_t)^gamma`` times the series of ``(1 - p_t)^j / j``; epsilon is added
    to its first coefficient.

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: of them, or labels.
        alpha: weight of objects, of both terms.
        gamma: focusing strength, >= 0.
        epsilon: >= -1, so that no coefficient is negative; 0 is the focal loss.
        reduction: see ``sigmoid_focal_loss``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``.
    """
    examples = Examples(inputs, targets, **options)
    loss = partial(formulas.poly1_focal_loss, gamma=gamma, epsilon=epsilon)
    loss(torch.empty(0))  # refuses a setting that is out of range
    factor = factor_of(alpha, examples.layout, inputs)
    formula = partial(binary.expected, loss, alpha=factor)
    return examples.loss(formula, reduction, settings=[factor])


def asymmetric_loss(
    inputs: Tensor,
    targets: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
    reduction: str = "none",
    **options: Any,
) -> Tensor:
    """Returns the asymmetric loss (Ridnik et al., arXiv 2009.14119), for images of many labels.

    Positives lose ``-(1 - p)^gamma_positive log(p)``; negatives
    ``-m^gamma_negative log(1 - m)`` with ``m = max(p - clip, 0)``: those scored below ``clip``
    cost nothing.

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: of them, or labels.
        gamma_positive: focusing strength of positives, >= 0.
        gamma_negative: that of negatives, >= 0.
        clip: the shift of the probability of negatives, in [0, 1).
        reduction: see ``sigmoid_focal_loss``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``.
    """
    binary.check_asymmetric(gamma_positive, gamma_negative, clip)
    formula = partial(
        binary.asymmetric,
        gamma_positive=gamma_positive,
        gamma_negative=gamma_negative,
        clip=clip,
    )
    return Examples(inputs, targets, **options).loss(formula, reduction)


def quality_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    *,
    beta: float = 2.0,
    reduction: str = "none",
    **options: Any,
) -> Tensor:
    """Returns ``|t - p|^beta`` times cross entropy (Li et al., arXiv 2006.04388).

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: of the shape of the logits: the quality of an object, such as the IoU of its box,
            in [0, 1]; or labels, whose quality is 1.
        beta: focusing strength, >= 0. Below 1 the slope has no bound where p equals a target
            between 0 and 1.
        reduction: see ``sigmoid_focal_loss``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``.
    """
    check_gamma(beta, "beta")
    examples = Examples(inputs, targets, **options)
    return examples.loss(partial(binary.quality_focal, beta=beta), reduction)


def varifocal_loss(
    inputs: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    reduction: str = "none",
    **options: Any,
) -> Tensor:
    """Returns the varifocal loss (Zhang et al., arXiv 2008.13367).

    An object of quality q > 0 loses q times cross entropy, the rest ``-alpha p^gamma log(1 - p)``:
    negatives are focused, the few objects are not.

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: as for ``quality_focal_loss``.
        alpha: weight of the rest, >= 0.
        gamma: focusing strength, >= 0.
        iou_weighted: whether the factor q is there.
        reduction: see ``sigmoid_focal_loss``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``.
    """
    check_gamma(gamma)
    check_gamma(alpha, "alpha")
    examples = Examples(inputs, targets, **options)
    formula = partial(binary.varifocal, alpha=alpha, gamma=gamma, iou_weighted=iou_weighted)
    return examples.loss(formula, reduction)


def equalized_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    ratios: Sequence[float] | Tensor,
    *,
    alpha: Alpha | Tensor = 0.25,
    gamma: float = 2.0,
    scale: float = 8.0,
    reduction: str = "none",
    **options: Any,
) -> Tensor:
    """Returns the equalized focal loss (Li et al., arXiv 2201.02593), for rare classes.

    Class j has the exponent ``gamma_j = gamma + scale (1 - ratio_j)``, and the factor
    ``gamma_j / gamma``.

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: of them, or labels.
        ratios: for each class what the gradients of its positives add up to over those of its
            negatives, in [0, 1]; ``EqualizedFocalLoss`` counts them.
        alpha: weight of objects.
        gamma: the exponent of a class in balance, > 0.
        scale: how much is added for a class without positives, >= 0.
        reduction: see ``sigmoid_focal_loss``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``.
    """
    examples = Examples(inputs, targets, **options)
    formula = equalized_formula(examples, ratios, alpha=alpha, gamma=gamma, scale=scale)
    return examples.loss(formula, reduction, settings=[alpha, ratios])


def equalized_formula(
    examples: Examples,
    ratios: Sequence[float] | Tensor,
    *,
    alpha: Alpha | Tensor,
    gamma: float,
    scale: float,
) -> Formula:
    """Returns the loss of ``equalized_focal_loss`` as a function of laid-out logits and targets."""
    check_gamma(scale, "scale")
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be finite and > 0, got {gamma}")
    factor = factor_of(alpha, examples.layout, examples.inputs)
    ratios = of_classes(ratios, examples.layout, "a ratio", examples.inputs)
    gammas = gamma + scale * (1 - ratios)

    def formula(x: Tensor, t: Tensor) -> Tensor:
        return binary.focal(x, t, alpha=factor, gamma=gammas) * (gammas / gamma)

    return formula


def ghm_loss(
    inputs: Tensor,
    targets: Tensor,
    *,
    bins: int = 10,
    counts: Tensor | None = None,
    reduction: str = "mean",
    **options: Any,
) -> Tensor:
    """Returns cross entropy weighted by the density of its gradients (Li et al., arXiv 1811.05181).

    Args:
        inputs: logits; see ``sigmoid_focal_loss``.
        targets: of them, or labels.
        bins: the number of parts that the norm of the gradient, ``|p - t|``, is counted in.
        counts: how many logits there are in each of them; by default those of this call.
        reduction: see ``sigmoid_focal_loss``; the paper's is ``mean``.
        **options: ``weight``, ``class_weight``, ``ignore_index``, ``class_dim``; what weighs 0
            is not counted.
    """
    examples = Examples(inputs, targets, **options)
    if counts is None:
        counts = gradient_counts(examples, bins)
    formula = ghm_formula(counts)
    if reduction != "mean":
        return examples.loss(formula, reduction)
    number = gradient_counts(examples, 1).sum().clamp(min=1)  # what weighs 0 is not counted
    return examples.loss(lambda x, t: formula(x, t) / number, "sum")


def ghm_formula(counts: Tensor) -> Formula:
    """Returns cross entropy weighted by ``N / (n_j M)`` (Li et al., arXiv 1811.05181).

    Args:
        counts: n_j, the number of logits in each part of [0, 1]; N is their sum, and M the number
            of parts that are not empty.
    """
    number = torch.where(counts > 0, counts, 1)  # what falls into an empty part is alone there
    weights = counts.sum() / (number * (counts > 0).sum().clamp(min=1))
    return partial(binary.weighted_by_gradient, weights=weights)


def gradient_counts(examples: Examples, bins: int) -> Tensor:
    """Returns how many logits have a gradient, ``|p - t|``, in each of some parts of [0, 1]."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    logits = examples.inputs.detach()
    blocks = examples.layout.blocks(logits)
    counts = torch.zeros(bins, dtype=compute_dtype(logits), device=logits.device)
    parts = torch.arange(bins, device=logits.device)
    for piece in _pieces(examples):
        rows, columns = piece
        x = blocks[rows, :, columns].to(counts.dtype)
        part = binary.gradient_part(x, examples.shares(piece), bins)
        counts_here = torch.ones_like(x, dtype=torch.bool)
        if (counted := examples.counts(piece)) is not None:
            counts_here = counts_here & counted
        if examples.weight is not None:
            counts_here = counts_here & (examples.weight[rows, :, columns] > 0)
        part = torch.where(counts_here, part, bins)
        counts = counts + torch.stack([(part == one).sum() for one in parts])
    return counts


def gradient_sums(examples: Examples) -> Tensor:
    """Returns for each class the sum of ``|p - t|`` over objects and over the rest, (2, K).

    What is not finite is left out: a step that is not taken must not stay in the sums.
    """
    logits = examples.inputs.detach()
    blocks = examples.layout.blocks(logits)
    dtype = sum_dtype(logits.device)
    sums = torch.zeros(2, examples.layout.num_classes, dtype=dtype, device=logits.device)
    for piece in _pieces(examples):
        rows, columns = piece
        x = blocks[rows, :, columns].to(compute_dtype(logits))
        t = examples.shares(piece).to(x.dtype)
        away = (torch.sigmoid(x) - t).abs()
        if examples.weight is not None:
            away = away * examples.weight[rows, :, columns]
        counts = away.isfinite()
        if (counted := examples.counts(piece)) is not None:
            counts = counts & counted
        away, t = torch.where(counts, away, 0), torch.where(counts, t, 0)
        sums = sums + torch.stack([(away * t).sum((0, 2)), (away * (1 - t)).sum((0, 2))])
    return sums


def _pieces(examples: Examples) -> Iterable[Piece]:
    """Returns the pieces of logits, one in a trace."""
    if not examples.known:
        return [EVERYTHING]
    return examples.layout.pieces(examples.inputs.device, PIECE)


def class_balanced_weights(counts: Sequence[float] | Tensor, beta: float = 0.9999) -> Tensor:
    """Returns a weight for each class, ``(1 - beta) / (1 - beta^n)``.

    (Cui et al., arXiv 1901.05555.) They add up to the number of classes. ``beta`` 0 weighs all
    classes alike; near 1 a class weighs as the inverse of its number.

    Args:
        counts: n of each class, (K,), > 0.
        beta: in [0, 1).

    Returns:
        (K,) float64, for ``weight`` of ``softmax_focal_loss`` or ``class_weight`` of the others.

    Raises:
        ValueError: there is no class, a class has no example, or ``beta`` is out of range.
    """
    numbers = torch.as_tensor(counts, dtype=torch.float64)
    if numbers.dim() != 1 or not numbers.numel() or not bool((numbers > 0).all()):
        raise ValueError(f"expected the number of examples of each class, each > 0, got {counts}")
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    if beta == 0:
        return torch.ones_like(numbers)
    weights = (1 - beta) / -torch.expm1(numbers * math.log(beta))
    return weights * len(numbers) / weights.sum()
