"""The summed sigmoid losses of the paper with their gradient, in one sweep over the logits.

Nearly every entry of an anchors x classes matrix is a negative. So the loss and the derivative of a
negative are computed for all entries, in blocks that stay in the cache, and the few entries of the
objects are replaced. Nothing of the size of the logits is made but the gradient, and that in the
forward pass: the backward pass only scales it.
"""

import functools
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fldet._compat import eager
from fldet.losses.elements import (
    Alpha,
    check_alpha,
    check_class_weight,
    check_integers,
    compute_dtype,
    sum_dtype,
)
from fldet.losses.formulas import Curve
from fldet.losses.fused_torch import (
    Level,
    blocked_sum,
    compiled_sum,
    kernel_arguments,
    suits_kernel,
)
from fldet.losses.sweep import grad_dtype, total

__all__ = ["blocks_sum", "check_weights", "count_classes", "sigmoid_loss_sum"]

log = logging.getLogger("fldet")


def sigmoid_loss_sum(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    *,
    curve: Curve,
    alpha: Alpha = None,
    class_weight: Sequence[float] | None = None,
    scale: float | Tensor = 1.0,
    compiled: bool = False,
) -> Tensor:
    """Returns the sum of ``scale * weight * class_weight * alpha_t * loss`` over all logits.

    On CUDA the kernel is Triton's where Triton works; it wants a C compiler. The gradient can be
    taken any number of times but not differentiated again; with ``create_graph`` the backward pass
    raises RuntimeError.

    Args:
        logits: for each level (N, K) raw scores, or a map (N, A * K, H, W), either contiguous or
            channels_last: neither is copied. Half types are computed in float32.
        labels: for each level (N,) or (N, H, W, A) integers, 0..K-1 for objects, K for background.
        weights: of the shapes of ``labels``, 0 to ignore an anchor; None means 1. No gradient
            reaches them, nor ``scale``.
        curve: the loss as a function of x_t.
        alpha: weight of the positive class, in [0, 1]; one for each class; or None for no balancing
            (Eq. 1 and 4).
        class_weight: factor of each class, on objects and the rest; None means 1.
        scale: factor on everything, a number or a scalar tensor.
        compiled: make a kernel for a CPU with ``torch.compile``, which needs a C++ compiler and
            some seconds at the first call. It takes rows and channels_last maps, where the scores
            of an anchor lie side by side, of 16 classes and more; others are summed without it.

    Returns:
        Scalar, float32 or float64; 0 for no anchors, still connected to ``logits``. Gradients have
        the dtype and the memory order of the logits.

    Raises:
        ValueError: shapes do not fit, there are not as many alphas or class weights as classes, or
            one of them or a label is out of range or no integer.
        UnavailableError: ``compiled``, and there is no C++ compiler.
    """
    check_weights([level.shape for level in labels], weights, scale)
    counts = {count_classes(*level) for level in zip(logits, labels, strict=True)}
    if len(counts) != 1:
        raise ValueError(f"expected one number of classes on all levels, got {sorted(counts)}")
    _check_range(labels, num_classes := counts.pop())
    check_alpha(alpha, num_classes)
    check_class_weight(class_weight, num_classes)
    job = _Job(labels, weights, num_classes, curve, alpha, class_weight, scale, compiled)
    return _run(job, logits)


def check_weights(
    shapes: Sequence[Sequence[int]], weights: Sequence[Tensor] | None, factor: float | Tensor
) -> None:
    """Raises ValueError where weights or a factor would be broadcast.

    Args:
        shapes: of the anchors of each level.
        weights: for each level of the same shape, or None.
        factor: a number or a scalar tensor.
    """
    if weights is not None and [tuple(one.shape) for one in weights] != list(map(tuple, shapes)):
        raise ValueError(
            f"expected weights of the shapes {list(map(tuple, shapes))}, one for each anchor, got "
            f"{[tuple(one.shape) for one in weights]}"
        )
    if isinstance(factor, Tensor) and factor.dim():
        raise ValueError(
            f"expected one number to divide by, or a scalar tensor, got {tuple(factor.shape)}"
        )


def count_classes(logits: Tensor, labels: Tensor) -> int:
    """Returns K of (N, K) logits with (N,) labels, or of a map with (N, H, W, A) labels.

    Raises:
        ValueError: the shapes do not fit, or the labels are no integers.
    """
    check_integers(labels)
    if logits.dim() != 4:
        if labels.shape != logits.shape[:-1]:
            raise ValueError(
                f"expected labels of shape {tuple(logits.shape[:-1])} for logits of shape "
                f"{tuple(logits.shape)}, got {tuple(labels.shape)}"
            )
        return logits.shape[-1]
    num_images, channels, height, width = logits.shape
    if labels.dim() != 4 or labels.shape[:3] != (num_images, height, width):
        raise ValueError(
            f"expected labels of shape ({num_images}, {height}, {width}, A) for a map of shape "
            f"{tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    num_anchors = labels.shape[3]
    if channels % num_anchors:
        raise ValueError(f"{channels} channels are no multiple of {num_anchors} anchors")
    return channels // num_anchors


def _check_range(labels: Sequence[Tensor], num_classes: int) -> None:
    """Raises ValueError where a label is outside 0..K; waits for the device once, not per level."""
    extremes = [torch.stack(level.aminmax()) for level in labels if level.numel()]
    if not extremes:
        return
    low, high = torch.stack(torch.stack(extremes).aminmax()).tolist()
    if not 0 <= low <= high <= num_classes:
        raise ValueError(
            f"labels must be in 0..{num_classes} ({num_classes} is background), got {low}..{high}"
        )


# --- the function and its gradient ---


@dataclass(frozen=True)
class _Job:
    """What is summed, but for the logits; see ``sigmoid_loss_sum``."""

    labels: Sequence[Tensor]
    weights: Sequence[Tensor] | None
    num_classes: int
    curve: Curve
    alpha: Alpha
    class_weight: Sequence[float] | None
    scale: float | Tensor
    compiled: bool

    def sum_level(
        self, index: int, logits: Tensor, need_grad: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the sum over a level, and its gradient in the shape of the logits."""
        total_of_level, grad = _level_sum(_level(self, index, logits), need_grad, self.compiled)
        return total_of_level, None if grad is None else _as_logits(grad, logits)


@eager
def _run(job: _Job, logits: Sequence[Tensor]) -> Tensor:
    return total([partial(job.sum_level, index) for index in range(len(logits))], logits)


def blocks_sum(
    logits: Tensor,
    labels: Tensor,
    factor: Tensor,
    curve: Curve,
    alpha: Alpha | Tensor,
    need_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Returns the sum over (outer, K, inner) logits, in float64, and its gradient if asked for.

    Args:
        logits: contiguous.
        labels: (outer, 1, inner), 0..K-1 for objects, K for background.
        factor: (outer, 1, inner), of each example, in float32 or float64.
        curve: the loss as a function of x_t.
        alpha: as for ``sigmoid_loss_sum``.
        need_grad: whether the gradient is made.
    """
    level = Level(logits, labels, factor, *_alphas(alpha, factor), curve)
    return _level_sum(level, need_grad, compiled=False)


# --- layouts ---


def _level(job: _Job, index: int, logits: Tensor) -> Level:
    """Returns one level of the job in the order of its memory."""
    labels = job.labels[index]
    like: dict[str, Any] = {"dtype": compute_dtype(logits), "device": logits.device}
    own_labels = _in_order_of(logits, labels, labels)
    factor = torch.as_tensor(job.scale, **like).view(1, 1, 1)
    if job.weights is not None:
        factor = factor * _in_order_of(logits, job.weights[index], labels).to(**like)
    blocks = _as_blocks(logits, labels, job.num_classes)
    factor = factor.expand_as(own_labels)
    alphas = _alphas(job.alpha, factor, job.class_weight)
    return Level(blocks, own_labels, factor, *alphas, job.curve)


def _alphas(
    alpha: Alpha | Tensor, like: Tensor, class_weight: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the factors of negatives and of positives, (K, 1), or (1, 1) for all classes."""
    weight = like.new_tensor(1.0 if class_weight is None else class_weight).view(-1, 1)
    if alpha is None:
        return weight, weight
    of_class = torch.as_tensor(alpha, dtype=like.dtype, device=like.device).view(-1, 1)
    return weight * (1 - of_class), weight * of_class


def _has_rows(logits: Tensor) -> bool:
    """Returns whether the K scores of an anchor lie side by side in memory."""
    if logits.dim() != 4:
        return True
    channels_last = logits.is_contiguous(memory_format=torch.channels_last)
    return channels_last and not logits.is_contiguous()


def _as_blocks(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Returns the logits as (outer, K, inner), a view where they are contiguous in any order."""
    if logits.dim() != 4:
        return logits.contiguous().view(labels.numel(), num_classes, 1)
    if _has_rows(logits):
        return logits.permute(0, 2, 3, 1).view(labels.numel(), num_classes, 1)
    num_images, height, width, num_anchors = labels.shape
    return logits.contiguous().view(num_images * num_anchors, num_classes, height * width)


def _in_order_of(logits: Tensor, per_anchor: Tensor, labels: Tensor) -> Tensor:
    """Returns what has the shape of the labels as (outer, 1, inner), in the order of the logits."""
    if _has_rows(logits):
        return per_anchor.reshape(-1, 1, 1)
    num_images, height, width, num_anchors = labels.shape
    planes = per_anchor.permute(0, 3, 1, 2)
    return planes.reshape(num_images * num_anchors, 1, height * width)


def _as_logits(grad: Tensor, logits: Tensor) -> Tensor:
    """Returns the (outer, K, inner) gradient as a view in the shape of the logits."""
    if logits.dim() != 4 or not _has_rows(logits):
        return grad.view(logits.shape)
    num_images, channels, height, width = logits.shape
    return grad.view(num_images, height, width, channels).permute(0, 3, 1, 2)


# --- the sum over a level: three ways ---


def _level_sum(level: Level, need_grad: bool, compiled: bool) -> tuple[Tensor, Tensor | None]:
    """Returns the sum over a level, in float64, and its gradient if there is need of it."""
    x = level.logits
    grad = torch.empty_like(x, dtype=grad_dtype(x)) if need_grad else None
    if x.numel() == 0:
        return x.new_zeros((), dtype=sum_dtype(x.device)), grad
    if x.is_cuda and x.dtype != torch.float64 and _triton_works(x.device):
        from fldet.losses.fused_triton import triton_sum

        return triton_sum(*kernel_arguments(level), level.curve, grad), grad
    if compiled and grad is not None and suits_kernel(x):
        return compiled_sum(level, grad), grad
    return blocked_sum(level, grad), grad


@functools.cache
def _triton_works(device: torch.device) -> bool:
    """Returns whether Triton's kernel runs on a device: its launcher is built by a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return False
    one = torch.ones(1, 1, 1, device=device)
    try:
        from fldet.losses.fused_triton import triton_sum

        triton_sum(one, one.long(), one, one[0], one[0], Curve(), one.clone()).item()
    except Exception as error:  # whatever Triton, the compiler or the driver raises
        if "out of memory" in str(error):
            raise  # says nothing of the kernel
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        log.warning(
            "the loss is computed without its kernel, which is slower: Triton fails on %s: %s: %s",
            *(device, type(error).__name__, reason),
        )
        return False
    return True
