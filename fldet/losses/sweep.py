"""Any loss summed piece by piece, with its gradient.

A loss that is computed as it is written makes ten tensors of the size of the logits, and waits for
memory most of the time. Here autograd sees a piece at a time that stays in the cache, in the
forward pass; what is left of it is the sum and the gradient, the one tensor of the size of the
logits. The backward pass only scales it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from fldet.losses.elements import Layout, Piece, compute_dtype, sum_dtype

# Entries for each thread that fit in the cache of a core with what autograd keeps of them, or with
# the few buffers of a closed form.
PIECE = 1 << 17
_CLOSED_PIECE = 1 << 18
# Returns the sum over a tensor of logits, float64, and its gradient, if it is asked for.
Summed = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
Terms = Callable[[Tensor, Piece], Tensor]
ClosedForm = Callable[[Tensor, Piece, Tensor, Tensor | None], Tensor]
# Returns the terms of all logits, to be added up, and the derivative of the sum by the logits.
Slopes = Callable[[Tensor], tuple[Tensor, Tensor]]


class WithSlopes(Protocol):
    """A closed form, for ``by_pieces`` and for ``traced_total``."""

    def __call__(self, x: Tensor, piece: Piece, scale: Tensor, grad: Tensor | None) -> Tensor:
        """Returns the sum over a piece, and fills its gradient."""

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the terms of all logits, and the derivative of their sum."""


def total(sums: Sequence[Summed], logits: Sequence[Tensor]) -> Tensor:
    """Returns the sum over some tensors of logits, a scalar that autograd knows the gradient of.

    Args:
        sums: what computes the sum of each, with its gradient, in the shape of the logits.
        logits: of any shapes.

    Returns:
        Scalar, float32 or float64. Its gradient can be taken any number of times but not
        differentiated again; with ``create_graph`` the backward pass raises RuntimeError.
    """
    return _Total.apply(sums, torch.is_grad_enabled(), *logits)  # type: ignore[no-untyped-call]


class _Total(torch.autograd.Function):
    """The sum over all; the gradients are made with it."""

    @staticmethod
    def forward(ctx: Any, sums: Sequence[Summed], grad_enabled: bool, *logits: Tensor) -> Tensor:
        grads, totals = [], []
        with torch.autocast(logits[0].device.type, enabled=False):
            for index, (summed, one) in enumerate(zip(sums, logits, strict=True)):
                value, grad = summed(one.detach(), grad_enabled and ctx.needs_input_grad[2 + index])
                totals.append(value)
                grads.append(grad)
        ctx.save_for_backward(*grads)
        ctx.dtypes = [one.dtype for one in logits]
        return torch.stack(totals).sum().to(compute_dtype(logits[0]))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: the gradient would count as a constant
            raise RuntimeError(
                "the gradient of a summed loss cannot be differentiated again; sum what "
                "`reduction='none'` or `per_anchor` returns instead"
            )
        grads = [
            None if grad is None else _scaled(grad, grad_output).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return None, None, *grads


def traced_total(slopes: Slopes, logits: Tensor, divisor: Tensor | float) -> Tensor:
    """Returns the sum over logits in a program that is being compiled, divided.

    What is added up and its gradient become one loop of the program; autograd would make a second
    one for the backward pass, with the exponentials and logarithms of the first.
    """
    total_of_terms = _TracedTotal.apply(slopes, logits)  # type: ignore[no-untyped-call]
    return quotient(total_of_terms, divisor)


def quotient(value: Tensor, divisor: Tensor | float) -> Tensor:
    """Returns a sum over its divisor: nothing over nothing is NaN, and its gradient 0."""
    if not isinstance(divisor, Tensor):
        return value / divisor
    nothing = divisor == 0
    return torch.where(nothing, torch.nan, value * torch.where(nothing, 0, 1 / divisor))


class _TracedTotal(torch.autograd.Function):
    """The sum of terms; the gradient is made with it."""

    @staticmethod
    def forward(ctx: Any, slopes: Slopes, logits: Tensor) -> Tensor:
        terms, slope = slopes(logits.to(compute_dtype(logits)))
        ctx.save_for_backward(slope.to(grad_dtype(logits)))
        ctx.dtype = logits.dtype
        return terms.sum()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor]:
        (slope,) = ctx.saved_tensors
        return None, (slope * grad_output).to(ctx.dtype)


def _scaled(grad: Tensor, factor: Tensor) -> Tensor:
    """Returns the saved gradient times a scalar, in its own memory if nobody can ask for it again.

    With ``retain_graph`` somebody can, and may change what was handed out before.
    """
    keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    if keeps_graph is None or keeps_graph():
        return grad * factor
    if factor.device.type == "cpu" and factor == 1:
        return grad
    return grad.mul_(factor)


def grad_dtype(logits: Tensor) -> torch.dtype:
    """Returns the type that a gradient is kept in until the backward pass.

    In float16 small gradients would vanish before a grad scaler makes them large.
    """
    return torch.float32 if logits.dtype == torch.float16 else logits.dtype


def by_pieces(
    terms: Terms, layout: Layout, divisor: Tensor | float, closed: ClosedForm | None = None
) -> Summed:
    """Returns what sums the terms of a loss piece by piece.

    Args:
        terms: the loss of a piece of logits (rows, K, columns) in float32 or float64; gets the
            slices of outer and inner that it is cut from.
        layout: of the logits.
        divisor: of the sum, a number or a scalar tensor.
        closed: the same summed, if there is a closed form: gets the piece, the slices, a factor,
            and where to write the gradient, None if it is not asked for.
    """
    piece_sum = closed or partial(_by_autograd, terms)
    size = _CLOSED_PIECE if closed else PIECE

    def summed(logits: Tensor, need_grad: bool) -> tuple[Tensor, Tensor | None]:
        blocks = layout.blocks(logits)
        dtype = compute_dtype(logits)
        grad = torch.empty_like(blocks, dtype=grad_dtype(logits)) if need_grad else None
        value = torch.zeros((), dtype=sum_dtype(logits.device), device=logits.device)
        divisor_of_all = torch.as_tensor(divisor, dtype=dtype, device=logits.device)
        # nothing over nothing is NaN, as torch's mean of no label; its gradient is 0
        nothing = divisor_of_all == 0
        scale = torch.where(nothing, 0, 1 / divisor_of_all)
        for piece in layout.pieces(logits.device, size):
            rows, columns = piece
            x = blocks[rows, :, columns].to(dtype)
            out = None if grad is None else grad[rows, :, columns]
            value += piece_sum(x, piece, scale, out)
        value = torch.where(nothing, torch.nan, value)
        return value, None if grad is None else layout.restored(grad)

    return summed


def _by_autograd(
    terms: Terms, x: Tensor, piece: Piece, scale: Tensor, grad: Tensor | None
) -> Tensor:
    if grad is None:
        with torch.no_grad():
            return terms(x, piece).sum() * scale
    with torch.enable_grad():
        loss = terms(x.requires_grad_(), piece).sum() * scale
    grad.copy_(torch.autograd.grad(loss, x)[0])
    return loss.detach()
