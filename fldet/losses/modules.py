"""The paper's losses as modules: K independent sigmoids, a sum over anchors, a divisor.

The focal loss and FL* of the appendix, and what the paper compares them with: cross entropy, and
the hinge loss it gave up.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fldet.losses.formulas import (
    Alpha,
    Curve,
    balance,
    check_alpha,
    cross_entropy,
    focal_loss,
    focal_loss_star,
    hard_targets,
    hinge_loss,
    signed_logits,
)
from fldet.losses.fused import check_weights, count_classes, sigmoid_loss_sum


class SigmoidLoss(nn.Module):
    """A loss over K independent sigmoids for each anchor, balanced by alpha (Sec. 3, 4.1).

    Args:
        formula: the unbalanced loss of signed logits, elementwise; see ``fldet.losses.formulas``.
        use_sigmoid: must be True. The head reads it from the config of the loss to choose between
            K sigmoid outputs and K + 1 softmax outputs; the paper's losses are defined for K.
        curve: the same loss as ``formula`` in the terms of ``fldet.losses.fused``, where sums
            are fast and take little memory; None if it has no such form.
        compiled: make the kernel of the sum on a CPU with ``torch.compile``, for maps in
            channels_last with 16 classes and more: up to a third less time, but it needs a C++
            compiler, and seconds at the first step.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        loss_weight: factor on the result.

    Raises:
        ValueError: ``use_sigmoid`` is not True, or alpha or what the formula holds is out of range.
    """

    def __init__(
        self,
        formula: Callable[[Tensor], Tensor],
        *,
        use_sigmoid: bool = True,
        curve: Curve | None = None,
        compiled: bool = False,
        alpha: Alpha = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise ValueError(f"{type(self).__name__} needs use_sigmoid=True, got {use_sigmoid!r}")
        check_alpha(alpha)
        formula(torch.empty(0))  # raises if gamma or a threshold is out of range
        self.formula = formula
        self.curve = curve
        self.compiled = compiled
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.loss_weight = loss_weight

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
        weight: Tensor | Sequence[Tensor] | None = None,
        avg_factor: float | Tensor = 1.0,
    ) -> Tensor:
        """Returns the weighted sum of the loss over all anchors and classes, over ``avg_factor``.

        For a second derivative (``create_graph=True``) sum ``per_anchor``; here it raises
        RuntimeError.

        Args:
            logits: (N, K) raw scores; or the map of a level, (N, A * K, H, W); or a list of either,
                to be summed over all of them.
            labels: (N,) integers, 0..K-1 for objects, K for background, or (N, K) zeros and ones;
                (N, H, W, A) integers for a map; a list for a list.
            weight: one for each anchor, (N,) or (N, H, W, A), 0 to ignore it; a scalar
                for all of them; None means 1.
            avg_factor: what to divide the sum by, usually the number of anchors assigned to a box;
                a number, or a tensor of one, (1,) from MMDetection's DETR heads.

        Returns:
            Scalar, float32 or float64; 0 for no anchors, still connected to ``logits``.

        Raises:
            ValueError: shapes do not fit, or a label is outside 0..K; nothing is broadcast.
        """
        levels, level_labels = _as_list(logits), _as_list(labels)
        weights = None if weight is None else _as_list(weight)
        anchors = [
            y.shape[:-1] if y.shape == x.shape and x.dim() != 4 else y.shape
            for x, y in zip(levels, level_labels, strict=True)
        ]
        if isinstance(weight, Tensor) and not weight.dim():
            weights = [weight.expand(shape) for shape in anchors]
        if isinstance(avg_factor, Tensor) and avg_factor.numel() == 1:
            avg_factor = avg_factor.reshape(())
        check_weights(anchors, weights, avg_factor)
        if self.curve is None or not _is_usual(levels, level_labels, weights, avg_factor):
            total = self._plain_sum(levels, level_labels, weights)
            return self.loss_weight * total / avg_factor
        return sigmoid_loss_sum(
            levels,
            level_labels,
            weights,
            curve=self.curve,
            alpha=self.alpha,
            scale=self.loss_weight / torch.as_tensor(avg_factor, dtype=torch.float64),
            compiled=self.compiled,
        )

    def _plain_sum(
        self, logits: list[Tensor], labels: list[Tensor], weights: list[Tensor] | None
    ) -> Tensor:
        losses = [self.per_anchor(*level) for level in zip(logits, labels, strict=True)]
        if weights is not None:
            losses = [loss * weight for loss, weight in zip(losses, weights, strict=True)]
        return torch.stack([loss.sum() for loss in losses]).sum()

    def per_anchor(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of each anchor, summed over the classes, of the shape of ``labels``.

        Neither ``loss_weight`` nor a divisor is in it. Arguments and errors as in ``forward``.
        """
        if logits.dim() == 4:
            logits = _one_row_per_anchor(logits, labels)
        labels = hard_targets(labels, logits.shape)
        return balance(self.formula(signed_logits(logits, labels)), labels, self.alpha).sum(-1)

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"alpha={self.alpha}, loss_weight={self.loss_weight}"


def _as_list(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _is_usual(
    logits: list[Tensor],
    labels: list[Tensor],
    weights: list[Tensor] | None,
    avg_factor: float | Tensor,
) -> bool:
    """Returns whether ``sigmoid_loss_sum`` does what is asked; if not, autograd does."""
    factors = [*(weights or []), *([avg_factor] if isinstance(avg_factor, Tensor) else [])]
    return (
        all(x.device.type in ("cpu", "cuda") and x.is_floating_point() for x in logits)
        and len({(x.device, x.dtype) for x in logits}) == 1
        and not any(y.is_floating_point() or y.dtype == torch.bool for y in labels)
        and all(
            x.dim() == y.dim() == 4 or x.shape[:-1] == y.shape
            for x, y in zip(logits, labels, strict=True)
        )
        and not any(factor.requires_grad for factor in factors)
    )


def _one_row_per_anchor(cls_score: Tensor, labels: Tensor) -> Tensor:
    """Returns the (N, A * K, H, W) map of a level as (N, H, W, A, K)."""
    num_classes = count_classes(cls_score, labels)
    return cls_score.permute(0, 2, 3, 1).reshape(*labels.shape, num_classes)


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
