"""The losses as modules: a function of this package with its settings."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fldet.losses.elements import Alpha, Gamma, check_gamma, sum_dtype
from fldet.losses.examples import Examples
from fldet.losses.sigmoid import sigmoid_focal_loss
from fldet.losses.softmax import softmax_focal_loss
from fldet.losses.variants import (
    asymmetric_loss,
    equalized_focal_loss,
    ghm_loss,
    gradient_counts,
    gradient_sums,
    poly1_focal_loss,
    quality_focal_loss,
    sigmoid_focal_loss_star,
    varifocal_loss,
)


class FunctionLoss(nn.Module):
    """A loss function with its settings.

    Args:
        function: of logits, targets and the settings.
        **settings: keyword arguments of the function.

    Raises:
        ValueError: the function refuses a setting.
    """

    def __init__(self, function: Callable[..., Tensor], **settings: Any) -> None:
        super().__init__()
        self.function, self.settings = function, settings

    def forward(self, inputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the loss: arguments, result and errors are those of the function.

        Args:
            inputs: logits.
            targets: of the shape of the logits, or labels.
            weight: of each logit, or of each example.
        """
        return self.function(inputs, targets, weight=weight, **self.settings)

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())

    def _examples(self, inputs: Tensor, targets: Tensor, weight: Tensor | None) -> Examples:
        options = {k: v for k, v in self.settings.items() if k in ("ignore_index", "class_dim")}
        return Examples(inputs, targets, weight=weight, **options)


class GammaRamp(nn.Module):
    """A gamma that goes from one value to another in the first steps of a training.

    It counts the calls of its loss in training mode, in a buffer that checkpoints keep. A loss that
    is computed twice for a step, by activation checkpointing, is counted twice.

    Args:
        start: gamma at the first step, >= 0.
        end: gamma after the last, >= 0.
        steps: how many there are, > 0.

    Raises:
        ValueError: an argument is out of range.
    """

    step: Tensor

    def __init__(self, start: float, end: float, steps: int) -> None:
        super().__init__()
        check_gamma([start, end])
        if not steps > 0:
            raise ValueError(f"steps must be > 0, got {steps}")
        self.start, self.end, self.steps = start, end, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self) -> float | Tensor:
        """Returns gamma at this step, and counts the step in training mode."""
        step = self.step.clone() if torch.compiler.is_compiling() else self.step.item()
        share = step / self.steps
        share = share.clamp(max=1.0) if isinstance(share, Tensor) else min(1.0, share)
        if self.training:
            self.step += 1
        return self.start + (self.end - self.start) * share

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        return f"start={self.start}, end={self.end}, steps={self.steps}"


class _FocalLoss(FunctionLoss):
    """What the two focal losses share: a gamma that may be a ``GammaRamp``."""

    def __init__(
        self, function: Callable[..., Tensor], gamma: Gamma | GammaRamp, **settings: Any
    ) -> None:
        super().__init__(function, **settings)
        if not isinstance(gamma, GammaRamp):
            check_gamma(gamma)
        self.gamma = gamma

    def forward(self, inputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the loss; see ``FunctionLoss.forward``."""
        gamma = self.gamma() if isinstance(self.gamma, GammaRamp) else self.gamma
        given = {} if weight is None else {"weight": weight}
        return self.function(inputs, targets, gamma=gamma, **given, **self.settings)

    def extra_repr(self) -> str:
        """Returns the settings, for printing a model."""
        gamma = "" if isinstance(self.gamma, nn.Module) else f"gamma={self.gamma!r}, "
        return f"{gamma}{super().extra_repr()}"


class FocalLoss(_FocalLoss):
    """``sigmoid_focal_loss`` as a module: K independent sigmoids.

    Args:
        alpha: weight of objects, in [0, 1], the rest weighs ``1 - alpha``; None for no balancing.
        gamma: focusing strength, >= 0: a number, one for each class, a function of p_t, or a
            ``GammaRamp``.
        reduction: ``none``, ``mean``, ``sum`` or ``positives``.
        **options: ``class_weight``, ``ignore_index``, ``class_dim``.

    Raises:
        ValueError: gamma is out of range; the rest is looked at in ``forward``.
    """

    def __init__(
        self,
        alpha: Alpha = 0.25,
        gamma: Gamma | GammaRamp = 2.0,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__(sigmoid_focal_loss, gamma, alpha=alpha, reduction=reduction, **options)


class SoftmaxFocalLoss(_FocalLoss):
    """``softmax_focal_loss`` as a module, in the place of ``torch.nn.CrossEntropyLoss``.

    Args:
        weight: factor of each class, (K,), or None.
        gamma: focusing strength, >= 0: a number, one for each class, a function of the probability
            of the class, or a ``GammaRamp``.
        reduction: ``none``, ``mean``, ``sum`` or ``positives``.
        **options: ``ignore_index``, ``label_smoothing``, ``background``.

    Raises:
        ValueError: gamma is out of range; the rest is looked at in ``forward``.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        gamma: Gamma | GammaRamp = 2.0,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        super().__init__(softmax_focal_loss, gamma, reduction=reduction, **options)
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        """Returns the loss; arguments, result and errors as of ``softmax_focal_loss``."""
        return super().forward(inputs, targets, self.weight)


class FocalLossStar(FunctionLoss):
    """``sigmoid_focal_loss_star`` (FL*, Appendix A) as a module; arguments as the function's."""

    def __init__(
        self,
        *,
        alpha: Alpha = 0.25,
        gamma: float = 2.0,
        beta: float = 1.0,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = {"alpha": alpha, "gamma": gamma, "beta": beta, "reduction": reduction}
        super().__init__(sigmoid_focal_loss_star, **settings, **options)


class Poly1FocalLoss(FunctionLoss):
    """``poly1_focal_loss`` as a module; arguments as the function's."""

    def __init__(
        self,
        *,
        alpha: Alpha = 0.25,
        gamma: float = 2.0,
        epsilon: float = 1.0,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = {"alpha": alpha, "gamma": gamma, "epsilon": epsilon, "reduction": reduction}
        super().__init__(poly1_focal_loss, **settings, **options)


class AsymmetricLoss(FunctionLoss):
    """``asymmetric_loss`` as a module; arguments as the function's."""

    def __init__(
        self,
        *,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        clip: float = 0.05,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        gammas = {"gamma_positive": gamma_positive, "gamma_negative": gamma_negative}
        super().__init__(asymmetric_loss, **gammas, clip=clip, reduction=reduction, **options)


class QualityFocalLoss(FunctionLoss):
    """``quality_focal_loss`` as a module; arguments as the function's."""

    def __init__(self, *, beta: float = 2.0, reduction: str = "mean", **options: Any) -> None:
        super().__init__(quality_focal_loss, beta=beta, reduction=reduction, **options)


class VarifocalLoss(FunctionLoss):
    """``varifocal_loss`` as a module; arguments as the function's."""

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = {"alpha": alpha, "gamma": gamma, "reduction": reduction}
        super().__init__(varifocal_loss, **settings, **options)


def _keep_type_of_buffers(module: nn.Module, fn: Callable[[Tensor], Tensor]) -> None:
    """Moves buffers as ``module.to`` does, but keeps their type: sums overflow in half types."""
    device = fn(torch.empty(0)).device
    for name, buffer in module.named_buffers(recurse=False):
        is_sum = buffer.dtype == torch.float64
        setattr(module, name, buffer.to(device, sum_dtype(device) if is_sum else buffer.dtype))


class GradientRatios(nn.Module):
    """Adds up the gradients of the positives and of the negatives of each class.

    They are those of all calls in training mode, and of all processes; checkpoints keep them.

    Args:
        num_classes: K.
    """

    positives: Tensor
    negatives: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("positives", "negatives"):
            self.register_buffer(name, torch.zeros(num_classes, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GradientRatios":
        del recurse  # there is nothing below
        _keep_type_of_buffers(self, fn)
        return self

    def forward(self, examples: Sequence[Examples]) -> Tensor:
        """Returns positives over negatives of the calls before, (K,) in [0, 1]; 1 at the first."""
        ratios = (self.positives / self.negatives.clamp(min=1e-12)).clamp(max=1)
        ratios = torch.where(self.positives + self.negatives > 0, ratios, 1)
        if self.training:
            sums = torch.stack([gradient_sums(one) for one in examples]).sum(0)
            if sums.shape[1] != len(ratios):
                raise ValueError(f"expected {len(ratios)} classes, got {sums.shape[1]}")
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(sums)
            self.positives += sums[0].to(self.positives)
            self.negatives += sums[1].to(self.negatives)
        return ratios


class EqualizedFocalLoss(FunctionLoss):
    """``equalized_focal_loss`` as a module, which counts the gradients of each class.

    Args:
        num_classes: K.
        alpha: weight of objects.
        gamma: the exponent of a class in balance, > 0.
        scale: how much is added for a class without positives, >= 0.
        reduction: ``none``, ``mean``, ``sum`` or ``positives``.
        **options: ``class_weight``, ``ignore_index``, ``class_dim``.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Alpha = 0.25,
        gamma: float = 2.0,
        scale: float = 8.0,
        reduction: str = "mean",
        **options: Any,
    ) -> None:
        settings = {"alpha": alpha, "gamma": gamma, "scale": scale, "reduction": reduction}
        super().__init__(equalized_focal_loss, **settings, **options)
        self.ratios = GradientRatios(num_classes)

    def forward(self, inputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the loss, and counts its gradients in training mode."""
        ratios = self.ratios([self._examples(inputs, targets, weight)])
        loss: Tensor = self.function(inputs, targets, ratios, weight=weight, **self.settings)
        return loss


class GradientCounts(nn.Module):
    """Counts the norms of gradients in equal parts of [0, 1], of a call or averaged over the calls.

    Args:
        bins: the number of parts.
        momentum: share of the counts before, in [0, 1); 0 counts each call alone.

    Raises:
        ValueError: an argument is out of range.
    """

    counts: Tensor

    def __init__(self, bins: int = 10, momentum: float = 0.0) -> None:
        super().__init__()
        if bins < 1 or not 0 <= momentum < 1:
            raise ValueError(f"bins must be >= 1, momentum in [0, 1), got {bins} and {momentum}")
        self.momentum = momentum
        self.register_buffer("counts", torch.zeros(bins))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GradientCounts":
        del recurse  # there is nothing below
        _keep_type_of_buffers(self, fn)
        return self

    def forward(self, examples: Sequence[Examples]) -> Tensor:
        """Returns how many logits there are in each part, (bins,), on average; 0 where none is now.

        The average of a part that is empty stays as it is.
        """
        bins = len(self.counts)
        counts = torch.stack([gradient_counts(one, bins) for one in examples]).sum(0)
        if self.momentum and self.training:
            averaged = self.momentum * self.counts.to(counts) + (1 - self.momentum) * counts
            self.counts.copy_(torch.where(counts > 0, averaged, self.counts.to(counts)))
            counts = torch.where(counts > 0, averaged, 0)
        return counts


class GHMLoss(FunctionLoss):
    """``ghm_loss`` as a module, which can average its counts over the steps.

    Args:
        bins: the number of parts that the norms of the gradients are counted in.
        momentum: share of the counts before, in [0, 1); 0 counts each call alone.
        reduction: ``none``, ``mean``, ``sum`` or ``positives``; the paper's is ``mean``.
        **options: ``class_weight``, ``ignore_index``, ``class_dim``.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, *, bins: int = 10, momentum: float = 0.0, reduction: str = "mean", **options: Any
    ) -> None:
        super().__init__(ghm_loss, reduction=reduction, **options)
        self.counts = GradientCounts(bins, momentum)

    def forward(self, inputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the loss; a call in training mode is averaged in."""
        counts = self.counts([self._examples(inputs, targets, weight)])
        loss: Tensor = self.function(inputs, targets, counts=counts, weight=weight, **self.settings)
        return loss
