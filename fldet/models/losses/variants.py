"""What others made of the focal loss, for heads: the formulas are those of ``fldet.losses``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fldet.losses import binary
from fldet.losses.elements import (
    Alpha,
    Gamma,
    check_gamma,
    check_integers,
    check_label_range,
    compute_dtype,
)
from fldet.losses.examples import Examples, Formula
from fldet.losses.formulas import poly1_focal_loss
from fldet.losses.modules import GradientCounts, GradientRatios
from fldet.losses.softmax import softmax_focal_loss
from fldet.losses.variants import equalized_formula, ghm_formula
from fldet.models.losses.sigmoid_loss import (
    SigmoidLoss,
    Tensors,
    check_head_reduction,
    divisor_of,
)
from fldet.registry import MODELS


@MODELS.register_module()
class Poly1FocalLoss(SigmoidLoss):
    """``fldet.losses.poly1_focal_loss`` over anchors.

    Args:
        gamma: focusing strength, >= 0.
        epsilon: >= -1; 0 is the focal loss.
        alpha: weight of positives, in [0, 1]; one for each class; or None for no balancing.
        **options: see ``SigmoidLoss``.
    """

    def __init__(
        self, *, gamma: float = 2.0, epsilon: float = 1.0, alpha: Alpha = 0.25, **options: Any
    ) -> None:
        formula = partial(poly1_focal_loss, gamma=gamma, epsilon=epsilon)
        super().__init__(formula, alpha=alpha, **options)


@MODELS.register_module()
class AsymmetricLoss(SigmoidLoss):
    """``fldet.losses.asymmetric_loss`` over anchors.

    Args:
        gamma_positive: focusing strength of positives, >= 0.
        gamma_negative: that of negatives, >= 0.
        clip: the shift of the probability of negatives, in [0, 1).
        **options: see ``SigmoidLoss``.
    """

    def __init__(
        self,
        *,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        clip: float = 0.05,
        **options: Any,
    ) -> None:
        binary.check_asymmetric(gamma_positive, gamma_negative, clip)
        elementwise = partial(
            binary.asymmetric,
            gamma_positive=gamma_positive,
            gamma_negative=gamma_negative,
            clip=clip,
        )
        super().__init__(elementwise=elementwise, **options)


class _QualityLoss(SigmoidLoss):
    """A loss whose targets are qualities, as MMDetection's heads hand them over."""

    def forward(
        self,
        logits: Tensors,
        labels: Tensors | tuple[Tensor, Tensor],
        weight: Tensors | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Returns the loss; see ``SigmoidLoss.forward``.

        Args:
            logits: (N, K) raw scores, or as ``SigmoidLoss.forward``.
            labels: (N, K) qualities in [0, 1]; or a tuple of labels, (N,) in 0..K, and the quality
                of each, (N,); or labels alone, whose quality is 1.
            weight: see ``SigmoidLoss.forward``.
            avg_factor: see ``SigmoidLoss.forward``.
            reduction_override: see ``SigmoidLoss.forward``.
        """
        if isinstance(labels, tuple) and isinstance(logits, Tensor):
            labels = _qualities(logits, *labels)
        return super().forward(logits, labels, weight, avg_factor, reduction_override)


def _qualities(logits: Tensor, labels: Tensor, qualities: Tensor) -> Tensor:
    """Returns the quality of each score, (N, K), from labels and the quality of each, (N,).

    Raises:
        ValueError: shapes do not fit, or a label is no integer or outside 0..K.
    """
    num_classes, shape = logits.shape[-1], logits.shape[:-1]
    check_integers(labels)
    if labels.shape != shape or qualities.shape != shape:
        raise ValueError(
            f"expected labels and qualities of shape {tuple(shape)}, got {tuple(labels.shape)} and "
            f"{tuple(qualities.shape)}"
        )
    check_label_range(labels, num_classes, None, f" ({num_classes} is background)")
    of_class = labels.unsqueeze(-1) == torch.arange(num_classes, device=logits.device)
    return torch.where(of_class, qualities.to(compute_dtype(logits)).unsqueeze(-1), 0)


@MODELS.register_module()
class QualityFocalLoss(_QualityLoss):
    """``fldet.losses.quality_focal_loss`` over anchors; targets as of MMDetection's GFL heads.

    Args:
        beta: focusing strength, >= 0.
        **options: see ``SigmoidLoss``.
    """

    def __init__(self, *, beta: float = 2.0, **options: Any) -> None:
        check_gamma(beta, "beta")
        super().__init__(elementwise=partial(binary.quality_focal, beta=beta), **options)


@MODELS.register_module()
class VarifocalLoss(_QualityLoss):
    """``fldet.losses.varifocal_loss`` over anchors; targets as of MMDetection's VFNet.

    Args:
        alpha: weight of what is no object, >= 0.
        gamma: focusing strength, >= 0.
        iou_weighted: whether the loss of an object is weighted by its quality.
        **options: see ``SigmoidLoss``.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        **options: Any,
    ) -> None:
        check_gamma(alpha, "alpha")
        check_gamma(gamma)
        elementwise = partial(binary.varifocal, alpha=alpha, gamma=gamma, iou_weighted=iou_weighted)
        super().__init__(elementwise=elementwise, **options)


@MODELS.register_module()
class EqualizedFocalLoss(SigmoidLoss):
    """``fldet.losses.equalized_focal_loss`` over anchors, for data with rare classes.

    Args:
        num_classes: K.
        gamma: the exponent of a class in balance, > 0.
        scale: how much is added for a class without positives, >= 0.
        alpha: weight of positives, in [0, 1]; or None for no balancing.
        **options: see ``SigmoidLoss``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        gamma: float = 2.0,
        scale: float = 8.0,
        alpha: Alpha = 0.25,
        **options: Any,
    ) -> None:
        super().__init__(alpha=alpha, **options)
        self.ratios = GradientRatios(num_classes)
        self.gamma, self.scale = gamma, scale

    def formula_of(self, examples: list[Examples]) -> Formula:
        """Returns the loss of logits and targets; counts their gradients in training mode."""
        ratios = self.ratios(examples)
        return equalized_formula(
            examples[0], ratios, alpha=self.alpha, gamma=self.gamma, scale=self.scale
        )


@MODELS.register_module()
class GHMLoss(SigmoidLoss):
    """``fldet.losses.ghm_loss`` over anchors; it divides by the number of scores that count.

    Args:
        bins: the number of parts that the norms of the gradients are counted in.
        momentum: share of the counts before, in [0, 1).
        **options: see ``SigmoidLoss``.
    """

    def __init__(self, *, bins: int = 10, momentum: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.counts = GradientCounts(bins, momentum)

    def forward(
        self,
        logits: Tensors,
        labels: Tensors,
        weight: Tensors | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Returns the loss; see ``SigmoidLoss.forward``. ``avg_factor`` is not used."""
        del avg_factor
        reduction = reduction_override or self.reduction
        factor = 1.0 if reduction == "mean" else None
        return super().forward(logits, labels, weight, factor, reduction)

    def formula_of(self, examples: list[Examples]) -> Formula:
        """Returns the loss of logits and targets, over the number of them."""
        counts = self.counts(examples)
        formula, number = ghm_formula(counts), counts.sum().clamp(min=1)
        return lambda x, t: formula(x, t) / number


@MODELS.register_module()
class SoftmaxFocalLoss(nn.Module):
    """``fldet.losses.softmax_focal_loss`` for heads with K + 1 outputs, the last for background.

    Args:
        gamma: focusing strength, >= 0.
        class_weight: one for each of the K + 1 outputs, or None.
        use_sigmoid: must be False; heads read it.
        loss_weight: factor on the result.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        ValueError: ``use_sigmoid`` is not False, or gamma is out of range.
    """

    def __init__(
        self,
        *,
        gamma: Gamma = 2.0,
        class_weight: Sequence[float] | None = None,
        use_sigmoid: bool = False,
        loss_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if use_sigmoid is not False:
            raise ValueError(f"SoftmaxFocalLoss needs use_sigmoid=False, got {use_sigmoid!r}")
        check_gamma(gamma)
        check_head_reduction(reduction)
        self.gamma, self.class_weight = gamma, class_weight
        self.use_sigmoid, self.loss_weight, self.reduction = use_sigmoid, loss_weight, reduction

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Returns the weighted loss: its sum over ``avg_factor``, or its mean.

        Args:
            logits: (N, K + 1) raw scores.
            labels: (N,) integers, 0..K, K for background.
            weight: one for each example, (N,), or None.
            avg_factor: what to divide the sum by; by default the number of examples.
            reduction_override: in the place of ``reduction``.

        Raises:
            ValueError: shapes do not fit, or a label is out of range.
        """
        reduction = reduction_override or self.reduction
        check_head_reduction(reduction)
        settings: dict[str, Any] = {"gamma": self.gamma, "weight": self.class_weight}
        loss = softmax_focal_loss(logits, labels, reduction="none", ignore_index=None, **settings)
        if weight is not None:
            if weight.shape != loss.shape:
                raise ValueError(
                    f"expected a weight for each example, {tuple(loss.shape)}, got "
                    f"{tuple(weight.shape)}"
                )
            loss = loss * weight
        if reduction == "none":
            return self.loss_weight * loss
        return self.loss_weight * loss.sum() / divisor_of(avg_factor, reduction, [loss])
