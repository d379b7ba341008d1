"""The losses of detectors: K independent sigmoids, a sum over anchors, a divisor.

They are called as MMDetection's heads call their losses, or over the maps of all levels at once as
ours does, and made of ``fldet.losses``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fldet.losses import binary
from fldet.losses.elements import (
    Alpha,
    check_alpha,
    check_class_weight,
    check_reduction,
    compute_dtype,
    factor_of,
    sum_dtype,
)
from fldet.losses.examples import Examples, Formula
from fldet.losses.formulas import (
    Curve,
    hinge_loss,
)
from fldet.losses.fused import check_weights, count_classes, sigmoid_loss_sum
from fldet.registry import MODELS

Tensors = Tensor | Sequence[Tensor]


class SigmoidLoss(nn.Module):
    """A loss over K independent sigmoids for each anchor, balanced by alpha (Sec. 3, 4.1).

    Args:
        formula: the unbalanced loss of signed logits, elementwise; see ``fldet.losses.formulas``.
            A ``Curve`` is summed fastest. None for a loss of another form.
        elementwise: such a loss, as a function of (outer, K, inner) logits and of targets in [0, 1]
            of the same shape; see ``fldet.losses.binary``.
        use_sigmoid: must be True. The head reads it from the config of the loss to choose between
            K sigmoid outputs and K + 1 softmax outputs; the paper's losses are defined for K.
        compiled: make the kernel of the sum on a CPU with ``torch.compile``, for maps in
            channels_last with 16 classes and more: up to a third less time, but it needs a C++
            compiler, and seconds at the first step.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        class_weight: factor of each class, >= 0, on its objects and on the rest alike; or None.
        loss_weight: factor on the result.
        reduction: ``mean``, ``sum`` or ``none``: see ``forward``.
        activated: whether the head hands over probabilities in the place of logits.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or alpha, a class weight or what the formula holds
            is out of range.
    """

    def __init__(
        self,
        formula: Callable[[Tensor], Tensor] | None = None,
        *,
        elementwise: Formula | None = None,
        use_sigmoid: bool = True,
        compiled: bool = False,
        alpha: Alpha = None,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        reduction: str = "mean",
        activated: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise ValueError(f"{type(self).__name__} needs use_sigmoid=True, got {use_sigmoid!r}")
        check_alpha(alpha)
        if elementwise is not None and alpha is not None:
            raise ValueError(f"{type(self).__name__} has no balance by alpha, got {alpha}")
        check_class_weight(class_weight)
        check_head_reduction(reduction)
        if formula is not None:
            formula(torch.empty(0))  # raises if gamma or a threshold is out of range
        self.formula = formula
        self.elementwise = elementwise
        self.compiled = compiled
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.class_weight = class_weight
        self.loss_weight = loss_weight
        self.reduction = reduction
        self.activated = activated

    def forward(
        self,
        logits: Tensors,
        labels: Tensors,
        weight: Tensors | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Returns the weighted loss over all anchors and classes: its sum over ``avg_factor``.

        For a second derivative (``create_graph=True``) take the reduction ``none``; that of a sum
        raises RuntimeError.

        Args:
            logits: (N, K) raw scores; or the map of a level, (N, A * K, H, W); or a list of either,
                to be summed over all of them.
            labels: (N,) integers, 0..K-1 for objects, K for background, or (N, K) shares in [0, 1];
                (N, H, W, A) integers for a map, or (N, K, H, W) shares; a list for a list.
            weight: one for each anchor, (N,) or (N, H, W, A), 0 to ignore it; (N, K) or (N * K,)
                for each score; a scalar for all of them; None means 1.
            avg_factor: what to divide the sum by, usually the number of anchors assigned to a box;
                a number, or a tensor of one, (1,) from MMDetection's DETR heads. By default the
                number of scores, which gives the mean.
            reduction_override: in the place of ``reduction``.

        Returns:
            Scalar, float32 or float64; 0 for no anchors, still connected to ``logits``. With the
            reduction ``none`` the loss of each score, of the shape of ``logits``.

        Raises:
            ValueError: shapes do not fit, there are not as many class weights as classes, or a
                label is outside 0..K; nothing is broadcast.
        """
        reduction = reduction_override or self.reduction
        check_head_reduction(reduction)
        levels, level_labels = _as_list(logits), _as_list(labels)
        weights = _weights_of(weight, levels, level_labels)
        if self.activated:
            levels = [_logits_of(one) for one in levels]
        divisor = divisor_of(avg_factor, reduction, levels)
        usual = reduction != "none" and _is_usual(levels, level_labels, weights, divisor)
        if usual and isinstance(self.formula, Curve):
            sums = sum_dtype(levels[0].device)
            return sigmoid_loss_sum(
                levels,
                level_labels,
                weights,
                curve=self.formula,
                alpha=self.alpha,
                class_weight=self.class_weight,
                scale=self.loss_weight / torch.as_tensor(divisor, dtype=sums),
                compiled=self.compiled,
            )
        examples = [
            _examples(x, y, None if weights is None else weights[index], self.class_weight)
            for index, (x, y) in enumerate(zip(levels, level_labels, strict=True))
        ]
        if len({one.layout.num_classes for one in examples}) > 1:
            raise ValueError("expected one number of classes on all levels")
        formula = self.formula_of(examples)
        if reduction == "none":
            (one,), (like,) = examples, levels
            return self.loss_weight * one.loss(formula, "none").reshape(like.shape)
        total = torch.stack([one.loss(formula, "sum") for one in examples]).sum()
        return self.loss_weight * total / divisor

    def formula_of(self, examples: list[Examples]) -> Formula:
        """Returns the balanced loss of (outer, K, inner) logits with targets of the same shape.

        Args:
            examples: of each level, for what the loss may have to count first.
        """
        if self.elementwise is not None:
            return self.elementwise
        if self.formula is None:
            raise NotImplementedError(f"{type(self).__name__} has no formula")
        alpha = factor_of(self.alpha, examples[0].layout, examples[0].inputs)
        return partial(binary.expected, self.formula, alpha=alpha)

    def per_anchor(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each anchor, summed over the classes, of the shape of ``labels``.

        Neither ``loss_weight`` nor a divisor is in it. Arguments and errors as in ``forward``.
        """
        examples = _examples(logits, labels, None, self.class_weight)
        loss = examples.loss(self.formula_of([examples]), "none").sum(examples.layout.dim)
        return loss.permute(0, 2, 3, 1) if loss.dim() == 4 else loss

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        weights = "" if self.class_weight is None else f"class_weight={self.class_weight}, "
        return f"alpha={self.alpha}, {weights}loss_weight={self.loss_weight}"


def _logits_of(probabilities: Tensor) -> Tensor:
    """Returns logits; at 0 and 1 they end, and their slope is that of the end."""
    p = probabilities.to(compute_dtype(probabilities))
    inside = p.detach().clamp(1e-12, 1 - torch.finfo(p.dtype).eps)
    return torch.logit(p + (inside - p).detach())


def check_head_reduction(reduction: str) -> None:
    """Raises ValueError where heads have no such reduction."""
    check_reduction(reduction)
    if reduction == "positives":
        raise ValueError("reduction must be none, mean or sum: a head counts positives itself")


def _as_list(value: Tensors) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _weights_of(
    weight: Tensors | None, levels: list[Tensor], labels: list[Tensor]
) -> list[Tensor] | None:
    """Returns a weight for each anchor, or for each score, of all levels.

    Raises:
        ValueError: they have other shapes.
    """
    if weight is None:
        return None
    shapes = [
        _without_classes(y) if _has_share_of_each(x, y) else y.shape
        for x, y in zip(levels, labels, strict=True)
    ]
    if isinstance(weight, Tensor) and not weight.dim():
        return [weight.expand(shape) for shape in shapes]
    weights = _as_list(weight)
    if len(levels) == len(weights) == 1 and levels[0].dim() == 2:
        (logits,), (one,) = levels, weights
        if one.shape in (logits.shape, (logits.numel(),)) and one.shape != shapes[0]:
            return [one.reshape(logits.shape)]
    check_weights(shapes, weights, 1.0)
    return weights


def _without_classes(labels: Tensor) -> torch.Size:
    dim = 1 if labels.dim() == 4 else labels.dim() - 1
    return torch.Size((*labels.shape[:dim], *labels.shape[dim + 1 :]))


def divisor_of(
    avg_factor: float | Tensor | None, reduction: str, levels: list[Tensor]
) -> float | Tensor:
    """Returns what the sum is divided by."""
    if avg_factor is None:
        return max(1, sum(x.numel() for x in levels)) if reduction == "mean" else 1.0
    if reduction == "sum":
        raise ValueError("avg_factor is of the mean, the reduction is sum")
    if isinstance(avg_factor, Tensor):
        avg_factor = avg_factor.reshape(()) if avg_factor.numel() == 1 else avg_factor
        check_weights([], None, avg_factor)
        # nothing to divide by: as good as nothing, as in MMDetection
        return torch.where(avg_factor == 0, torch.finfo(torch.float32).eps, avg_factor)
    return avg_factor or torch.finfo(torch.float32).eps


def _is_usual(
    logits: list[Tensor],
    labels: list[Tensor],
    weights: list[Tensor] | None,
    avg_factor: float | Tensor,
) -> bool:
    """Returns whether ``sigmoid_loss_sum`` does what is asked."""
    factors = [*(weights or []), *([avg_factor] if isinstance(avg_factor, Tensor) else [])]
    return (
        all(x.device.type in ("cpu", "cuda") and x.is_floating_point() for x in logits)
        and len({(x.device, x.dtype) for x in logits}) == 1
        and not any(y.is_floating_point() or y.dtype == torch.bool for y in labels)
        and all(
            x.shape[:-1] == y.shape or (x.dim() == y.dim() == 4 and not _has_share_of_each(x, y))
            for x, y in zip(logits, labels, strict=True)
        )
        and all(w.shape == y.shape for w, y in zip(weights or [], labels, strict=False))
        and not any(factor.requires_grad for factor in factors)
    )


def _has_share_of_each(logits: Tensor, labels: Tensor) -> bool:
    """Returns whether there is a target for each score, zeros and ones or shares.

    Integers of the shape of a map with as many channels as rows and columns are labels.
    """
    fits_labels = logits.dim() == 4 and logits.shape[1:3] == logits.shape[2:]
    is_share = labels.is_floating_point() or labels.dtype == torch.bool or not fits_labels
    return labels.shape == logits.shape and is_share


def _examples(
    logits: Tensor, labels: Tensor, weight: Tensor | None, class_weight: Sequence[float] | None
) -> Examples:
    """Returns a level: rows as they are, a map with the anchors in a dimension of their own."""
    options: Any = {"class_weight": class_weight, "ignore_index": None}
    if logits.dim() != 4:
        return Examples(logits, labels, weight=weight, class_dim=-1, **options)
    if _has_share_of_each(logits, labels):
        return Examples(logits, labels, weight=weight, class_dim=1, **options)
    num_classes = count_classes(logits, labels)
    return Examples(
        logits.reshape(len(logits), labels.shape[3], num_classes, *logits.shape[2:]),
        labels.permute(0, 3, 1, 2),
        weight=None if weight is None else weight.permute(0, 3, 1, 2),
        class_dim=2,
        **options,
    )


@MODELS.register_module()
class FocalLoss(SigmoidLoss):
    """Alpha-balanced focal loss (Eq. 5; Eq. 4 with ``alpha=None``).

    Args:
        gamma: focusing strength, >= 0; 0 is cross entropy.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        **options: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or gamma or an alpha is out of range.
    """

    def __init__(
        self, *, gamma: float = 2.0, alpha: Alpha = 0.25, use_sigmoid: bool = True, **options: Any
    ) -> None:
        super().__init__(Curve(power=gamma), alpha=alpha, use_sigmoid=use_sigmoid, **options)
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
        **options: see ``SigmoidLoss``.

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
        **options: Any,
    ) -> None:
        super().__init__(
            Curve(gain=gamma, shift=beta), alpha=alpha, use_sigmoid=use_sigmoid, **options
        )
        self.gamma = gamma
        self.beta = beta

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"gamma={self.gamma}, beta={self.beta}, {super().extra_repr()}"


@MODELS.register_module()
class CrossEntropyLoss(SigmoidLoss):
    """Cross entropy (Eq. 1), balanced by alpha (Eq. 3) if one is given.

    Args:
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        **options: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or an alpha is outside [0, 1].
    """

    def __init__(self, *, alpha: Alpha = None, use_sigmoid: bool = True, **options: Any) -> None:
        super().__init__(Curve(), alpha=alpha, use_sigmoid=use_sigmoid, **options)


@MODELS.register_module()
class HingeLoss(SigmoidLoss):
    """Hinge loss on p_t (Sec. 5.1): a negative control, which the paper found unstable.

    Args:
        threshold: the p_t above which an example costs nothing, in (0, 1].
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        **options: see ``SigmoidLoss``.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or the threshold or an alpha is out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        alpha: Alpha = None,
        use_sigmoid: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            partial(hinge_loss, threshold=threshold),
            alpha=alpha,
            use_sigmoid=use_sigmoid,
            **options,
        )
        self.threshold = threshold

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"threshold={self.threshold}, {super().extra_repr()}"
