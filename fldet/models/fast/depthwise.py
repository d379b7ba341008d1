"""Depthwise convolutions whose weights are trained on a CPU, with a quicker gradient.

For the gradient of the weight oneDNN has a kernel made for depthwise convolutions, but up to 3
columns only. Wider ones are computed as dense convolutions of 8 or 16 channels, of which all
but the diagonal is thrown away. Here a few columns are taken at a time. For the gradient of the map
it has none in bfloat16 where the stride is more than 1: that one is computed in float32.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WIDEST = 3  # columns that oneDNN's own kernel takes
Pair = tuple[int, int]  # of rows, of columns


def is_slow_depthwise(module: nn.Module) -> bool:
    """Whether a module is a depthwise convolution with a slow gradient, without dilation.

    Those with more than 3 columns are, and in bfloat16 those with a stride.
    """
    return (
        isinstance(module, nn.Conv2d)
        and 1 < module.groups == module.in_channels == module.out_channels
        and (module.kernel_size[1] > WIDEST or module.stride != (1, 1))
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def with_quick_gradient(method: Any) -> Any:
    """Returns ``_conv_forward`` of an ``is_slow_depthwise`` module, with the quicker gradients.

    They are used for maps in channels_last on a CPU, not narrower than kernel and stride, in
    float32 or under autocast to bfloat16, where the weight is trained; else ``method`` is.
    """

    def _conv_forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        quick = (
            (weight.requires_grad and torch.is_grad_enabled())
            and (input.device.type == "cpu" and weight.dtype == torch.float32)
            and (dtype is torch.bfloat16 or (dtype is None and input.dtype == torch.float32))
            and input.is_contiguous(memory_format=torch.channels_last)
            and input.shape[3] >= max(self.kernel_size[1], self.stride[1])
        )
        if not quick:
            return method(self, input, weight, bias)
        if hasattr(self, "weight_for"):  # of EfficientNet's convolutions of stride 2
            weight = self.weight_for(input, weight)
        if dtype is not None:
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        of = (input, weight, bias, self.stride, self.padding)
        return DepthwiseConv2d.apply(*of)  # type: ignore[no-untyped-call]

    return _conv_forward


class DepthwiseConv2d(torch.autograd.Function):
    """A depthwise convolution of (N, C, H, W) with (C, 1, rows, columns), stride and padding."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
    ) -> Tensor:
        """Returns torch's result."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of map, weight and bias, where they are wanted."""
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        return (
            map_gradient(grad, x, weight, ctx.stride, ctx.padding) if of_x else None,
            weight_gradient(grad, x, weight, ctx.stride, ctx.padding) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def map_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Returns the gradient of the map, (N, C, H, W); arguments as of ``weight_gradient``."""
    if x.dtype == torch.bfloat16 and stride != (1, 1):
        of = (grad.float(), x.float(), weight.float(), stride, padding)
        return _backward(*of, 0).to(x.dtype)
    return _backward(grad, x, weight, stride, padding, 0)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Returns the gradient of a depthwise weight, a few columns of it at a time.

    Args:
        grad: of the result, (N, C, H', W').
        x: the map, (N, C, H, W), as wide as the weight or wider.
        weight: (C, 1, rows, columns).
        stride: of rows and of columns.
        padding: at both sides, of rows and of columns.
    """
    cuts = _cuts(x.shape[3], grad.shape[3], weight.shape[3], stride[1], padding[1])
    if cuts is None:
        return _backward(grad, x, weight, stride, padding, 1)
    parts = []
    for cut in cuts:
        part = weight[..., cut.first : cut.first + cut.columns]
        of_part = F.pad(grad, cut.pad) if any(cut.pad) else grad
        parts.append(_backward(of_part, x, part, stride, (padding[0], cut.border), 1))
    return torch.cat(parts, 3)


class _Cut(NamedTuple):
    """Columns of a weight as a convolution of their own, whose border may differ.

    Its results are those of the whole with ``pad`` at the left and at the right.
    """

    first: int
    columns: int
    border: int
    pad: tuple[int, int]


@lru_cache(maxsize=1024)
def _cuts(
    size: int, results: int, columns: int, stride: int, padding: int, first: int = 0
) -> tuple[_Cut, ...] | None:
    """Returns all columns from ``first`` on, cut so that the fewest results are copied.

    oneDNN's kernel wants a border of at most half of the columns. Results that ``pad`` cuts off
    must be of windows that show nothing of the map. None if it cannot be done.
    """
    if first == columns:
        return ()
    found = []
    for taken in range(min(WIDEST, columns - first), 0, -1):
        for border in range(taken // 2 + 1):
            moved, rest = divmod(border - padding + first, stride)
            width = (size + 2 * border - taken) // stride + 1
            after = width - moved - results
            is_empty_before = taken - 1 < stride + border  # the last window before the row
            is_empty_after = stride * width - border >= size
            if rest or (moved < 0 and not is_empty_before) or (after < 0 and not is_empty_after):
                continue
            others = _cuts(size, results, columns, stride, padding, first + taken)
            if others is not None:
                found.append((_Cut(first, taken, border, (moved, after)), *others))
    return min(found, key=lambda cuts: sum(_cost(cut, stride) for cut in cuts), default=None)


def _cost(cut: _Cut, stride: int) -> int:
    """Returns about what a cut costs; with a stride, oneDNN's kernel takes no single column."""
    return 1 + any(cut.pad) + 5 * (cut.columns == 1 < stride)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, which: int
) -> Tensor:
    """Returns torch's gradient of the map (0) or of the weight (1)."""
    gradients = torch.ops.aten.convolution_backward(
        *(grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight)),
        [which == 0, which == 1, False],
    )
    return gradients[which]
