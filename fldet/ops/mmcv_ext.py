"""Stands in for ``mmcv._ext`` where mmcv was installed without compiled operators.

Loaded by ``fldet._compat`` under the name ``mmcv._ext``. It holds what RetinaNet, SSD and
Faster R-CNN need, with the signatures that ``mmcv.ops`` calls and the results of the compiled
operators; any other operator can be imported but raises when called. mmcv asks for about 120
names while it is imported, hence the module-level ``__getattr__``.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from fldet._compat import eager
from fldet.errors import UnavailableError
from fldet.losses.sigmoid import sigmoid_focal_loss
from fldet.ops.nms import keep_without_mmcv
from fldet.ops.roi_align import Pooling, pool_features, pool_features_backward, widened


@eager
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Returns the (K,) indices that greedy suppression keeps, in descending score order.

    Ties as in the compiled operator: the order of torch's *unstable* sort. So the two agree
    exactly; ``fldet.ops.nms`` has the plainer rule, and the same arguments. Computed in float32:
    the compiled operator takes no other type.
    """
    order = scores.detach().sort(0, descending=True).indices
    return order[keep_without_mmcv(boxes.detach()[order].float(), iou_threshold, offset)]


@eager
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,  # noqa: ARG001
    argmax_x: Tensor,  # noqa: ARG001
    *options: Any,
    **named: Any,
) -> None:
    """Writes the pooled features of ``input`` (B, C, H, W) to ``output`` (R, C, h, w).

    The options are those of ``_pooling``.
    """
    pooling = _pooling(*options, **named)
    if output.numel() > 0:
        output.copy_(pool_features(widened(input), rois.to(widened(input)), pooling))


@eager
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,  # noqa: ARG001
    argmax_x: Tensor,  # noqa: ARG001
    grad_input: Tensor,
    *options: Any,
    **named: Any,
) -> None:
    """Writes the gradient with respect to the features to ``grad_input`` (B, C, H, W)."""
    pooling = _pooling(*options, **named)
    if grad_output.numel() > 0:
        grad = widened(grad_output)
        grad_input.copy_(pool_features_backward(grad, rois.to(grad), grad_input.shape, pooling))


@eager
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the elementwise focal loss of logits ``input`` (N, K) to ``output`` (N, K).

    ``target`` (N,) is a class in [0, K - 1]; any other number is background. ``weight`` (K,) is a
    factor for the rows of each class, or empty. Background rows, for which the compiled operator
    reads beyond the end of ``weight``, get 1.
    """
    output.copy_(_focal_loss(input.detach(), target, weight, gamma, alpha))


@eager
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of each loss by its own logit to ``grad_input`` (N, K)."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def _focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    classes = torch.arange(logits.shape[1], device=logits.device)
    targets = target[:, None] == classes
    loss = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    if weight.numel() > 0:
        factor = weight[target.clamp(0, len(weight) - 1)]
        loss = loss * torch.where(targets.any(dim=1), factor, 1.0)[:, None]
    return loss


def _pooling(
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Pooling:
    """Returns the options of mmcv's operator as ours has them; of modes it has 1, the average."""
    if pool_mode != 1:
        raise _missing("roi_align with pool_mode='max'")
    return Pooling(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)


def _missing(name: str) -> UnavailableError:
    return UnavailableError(
        f"mmcv's operator {name} needs mmcv with compiled operators",
        expected="this mmcv has none; fldet supplies nms, roi_align and sigmoid_focal_loss",
        hint="pip install --no-build-isolation --force-reinstall --no-deps onedl-mmcv",
    )


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def operator(*_args: object, **_kwargs: object) -> NoReturn:
        raise _missing(name)

    operator.__name__ = operator.__qualname__ = name
    globals()[name] = operator  # the same object each time, so that it can be pickled
    return operator
