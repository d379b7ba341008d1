"""The sum over a level for ``fldet.losses.fused``, in torch: by blocks or by Inductor's kernel."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fldet.errors import UnavailableError
from fldet.losses.elements import sum_dtype
from fldet.losses.formulas import Curve

__all__ = [
    "Level",
    "blocked_sum",
    "compiled_sum",
    "kernel_arguments",
    "shared_sum",
    "signed_sum",
    "sparse_sum",
    "suits_kernel",
    "terms_and_slopes",
]

_CPU_BLOCK = 1 << 16  # entries for each thread; five buffers of them fit in the cache of a core
_CUDA_BLOCK = 1 << 22
_KERNEL_ENTRIES = 1 << 20  # of a piece that the compiled kernel takes
_KERNEL_CLASSES = 16  # with fewer, Inductor's loop over them is slower than the blocks


@dataclass(frozen=True)
class Level:
    """A level in the order of its memory: anchors by row, or each class as a plane of ``inner``.

    Attributes:
        logits: (outer, K, inner), contiguous.
        labels: (outer, 1, inner), contiguous.
        factor: (outer, 1, inner), the weight of an anchor times the scale.
        negative: (K, 1), or (1, 1) for all classes: ``1 - alpha``, or 1, times the class weight.
        positive: the same of alpha.
        curve: the loss.
    """

    logits: Tensor
    labels: Tensor
    factor: Tensor
    negative: Tensor
    positive: Tensor
    curve: Curve


# --- block by block ---


def blocked_sum(level: Level, grad: Tensor | None) -> Tensor:
    """Returns the sum, and fills the gradient: negatives block by block, then the positives."""
    num_classes, inner = level.logits.shape[1:]
    labels = level.labels.flatten()
    anchors = (labels < num_classes).nonzero().squeeze(1)
    classes = labels[anchors].long()
    entries = (anchors // inner * num_classes + classes) * inner + anchors % inner
    total = _sum_of_negatives(level, entries.sort().values, grad)
    # A positive at x is a negative at -x; the derivative changes its sign.
    factor = level.factor.reshape(-1)[anchors] * level.positive.expand(num_classes, 1)[classes, 0]
    v = -level.logits.view(-1)[entries].to(factor.dtype)
    slope, *buffers = torch.empty(5, len(v)).to(v)
    value = _negatives(v, [factor], level.curve, slope, buffers)
    if grad is not None:
        grad.view(-1)[entries] = -slope.to(grad.dtype)
    return total + value


def signed_sum(
    x: Tensor, sign: Tensor | int, factor: Tensor, curve: Curve, grad: Tensor | None
) -> Tensor:
    """Returns the sum over positives and negatives, and fills the gradient.

    Args:
        x: of any shape, float32 or float64.
        sign: 1 for negatives, -1 for positives.
        factor: what the loss is multiplied by, to be broadcast.
        curve: the loss.
        grad: of the shape of ``x``, or None.
    """
    slope, *buffers = torch.empty(5, *x.shape, dtype=x.dtype, device=x.device)
    if grad is not None and grad.dtype == x.dtype and grad.is_contiguous():
        slope = grad
    value = _negatives(x * sign, [factor], curve, slope, buffers)
    slope.mul_(sign)
    if grad is not None and grad is not slope:
        grad.copy_(slope)
    return value


def shared_sum(
    x: Tensor, t: Tensor, positive: Tensor, negative: Tensor, curve: Curve, grad: Tensor | None
) -> Tensor:
    """Returns the sum expected over both labels, and fills the gradient.

    Args:
        x: of any shape, float32 or float64.
        t: the probability of a positive, of the shape and type of ``x``.
        positive: what the loss of a positive is multiplied by, to be broadcast.
        negative: the same of a negative.
        curve: the loss.
        grad: of the shape of ``x``, or None.
    """
    sides = None if grad is None else torch.empty(2, *x.shape, dtype=x.dtype, device=x.device)
    value = signed_sum(x, 1, (1 - t) * negative, curve, None if sides is None else sides[0])
    value += signed_sum(x, -1, t * positive, curve, None if sides is None else sides[1])
    if grad is not None and sides is not None:
        grad.copy_(sides.sum(0))
    return value


def sparse_sum(
    x: Tensor, t: Tensor, positive: Tensor, negative: Tensor, curve: Curve, grad: Tensor | None
) -> Tensor | None:
    """Returns the sum over logits with few positives, and fills the gradient; None for many.

    Args:
        x: contiguous, float32 or float64.
        t: the probability of a positive, of the shape of ``x``.
        positive: what the loss of a positive is multiplied by, a scalar.
        negative: the same of a negative.
        curve: the loss.
        grad: of the shape of ``x``, or None.
    """
    entries = _few_positives(t.reshape(-1))
    if entries is None:
        return None
    slope, *buffers = torch.empty(5, *x.shape, dtype=x.dtype, device=x.device)
    if grad is not None and grad.dtype == x.dtype and grad.is_contiguous():
        slope = grad
    value = _negatives(x, [negative], curve, slope, buffers, skip=entries)
    own, share = x.view(-1)[entries], t.reshape(-1)[entries].to(x.dtype)
    slope_of_own = torch.empty_like(own)
    value += shared_sum(own, share, positive, negative, curve, slope_of_own)
    slope.view(-1)[entries] = slope_of_own
    if grad is not None and grad is not slope:
        grad.copy_(slope)
    return value


def _few_positives(t: Tensor) -> Tensor | None:
    """Returns where (N,) values >= 0 are above 0, found among sums; None if they are not few."""
    if len(t) % 64:
        entries = t.nonzero().squeeze(1)
        return entries if 64 * len(entries) <= len(t) else None
    rows = t.view(-1, 64)
    some = rows.sum(1).nonzero().squeeze(1)
    if 4 * len(some) > len(rows):
        return None
    row, column = rows[some].nonzero().unbind(1)
    return some[row] * 64 + column


def _sum_of_negatives(level: Level, left_out: Tensor, grad: Tensor | None) -> Tensor:
    """Returns the sum of all entries as negatives, and fills the gradient, but for some entries.

    Args:
        level: the level.
        left_out: indices of entries in the order of memory, ascending; they count as 0.
        grad: of the shape of the logits, or None.
    """
    x = level.logits
    blocks = list(_blocks(x))
    starts = [(rows.start * x.shape[1] + classes.start) * x.shape[2] for rows, classes in blocks]
    bounds = torch.searchsorted(left_out, torch.tensor([*starts, x.numel()]).to(left_out)).tolist()
    shared = len(level.negative) == 1
    factor = level.factor
    scratch = torch.empty(5, x[blocks[0]].numel(), dtype=factor.dtype, device=x.device)
    total = torch.zeros((), dtype=sum_dtype(x.device), device=x.device)
    for index, (rows, classes) in enumerate(blocks):
        v = x[rows, classes]
        out, *buffers = scratch[:, : v.numel()].view(5, *v.shape).unbind()
        target = None if grad is None else grad[rows, classes]
        if target is not None and target.dtype == out.dtype:
            out = target
        lo, hi = bounds[index : index + 2]
        skip = left_out[lo:hi] - starts[index] if lo < hi else None
        factors = [factor[rows], level.negative[classes]]
        if shared:
            factors = [factors[0] * level.negative]
        total += _negatives(v, factors, level.curve, out, buffers, skip)
        if target is not None and target is not out:
            target.copy_(out)
    return total


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yields the rows and the classes of pieces of (outer, K, inner), each of adjacent entries.

    The first is the largest, of about as many entries as fit in the cache.
    """
    if x.device.type == "cpu":
        # Where there is little to do, the buffers are not to be larger than the logits.
        size = min(_CPU_BLOCK * torch.get_num_threads(), max(_CPU_BLOCK // 2, x.numel() // 8))
    else:
        size = _CUDA_BLOCK
    outer, num_classes, inner = x.shape
    num_rows = max(1, size // (num_classes * inner))
    at_once = max(1, round(size / inner))  # all classes if there is more than one row
    for row in range(0, outer, num_rows):
        for first in range(0, num_classes, at_once):
            classes = slice(first, min(first + at_once, num_classes))
            yield slice(row, min(row + num_rows, outer)), classes


def _negatives(
    x: Tensor,
    factors: Sequence[Tensor],
    curve: Curve,
    slope: Tensor,
    buffers: Sequence[Tensor],
    skip: Tensor | None = None,
) -> Tensor:
    """Returns the sum over negatives, factors included, and fills ``slope`` with its derivative.

    With v = gain * x - shift, p = sigmoid(v), s = softplus(v): the loss of a negative is
    p^power s / gain, its derivative p^power (p + power (1 - p) s) (Eq. 5 and Appendix A, B).

    Args:
        x: logits of any shape.
        factors: what the loss is multiplied by, broadcast to the shape of ``x``.
        curve: the loss.
        slope: of the shape of ``x``, overwritten.
        buffers: four tensors like ``slope``.
        skip: indices into the flattened ``x`` of what counts as 0.
    """
    v, p, s, rest = buffers
    if x.dtype == v.dtype and (curve.gain, curve.shift) == (1, 0):
        v = x
    else:
        v.copy_(x).mul_(curve.gain).sub_(curve.shift)
    torch.clamp(v, max=80, out=p).exp_()  # far above, s = v and p = 1 whatever the exponential is
    torch.log1p(p, out=s)
    torch.maximum(s, v, out=s)
    torch.add(p, 1, out=rest)
    p.div_(rest)
    _power(p, curve.power, out=slope)
    for factor in factors:
        slope.mul_(factor)
    if skip is not None:
        slope.view(-1).index_fill_(0, skip, 0)
    # not a dot product, which adds one after the other and loses digits
    total = torch.mul(slope, s, out=rest).sum() / curve.gain
    if curve.power:
        torch.addcmul(s, p, s, value=-1, out=rest)
        p.add_(rest, alpha=curve.power)
    slope.mul_(p)
    return total


def _power(p: Tensor, exponent: float, out: Tensor) -> None:
    """Fills ``out`` with p^exponent."""
    if exponent in (0, 0.5, 1, 2, 3):  # torch has shortcuts for these
        torch.pow(p, exponent, out=out)
    else:
        torch.log(p, out=out).mul_(exponent).exp_()


# --- written for a compiler, which makes one loop of it ---


def terms_and_slopes(
    x: Tensor, t: Tensor, positive: Tensor, negative: Tensor, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Returns the loss of each logit, expected over both labels, and its derivative.

    Args:
        x: of any shape, float32 or float64.
        t: the probability of a positive, of the shape of ``x``; or booleans.
        positive: what the loss of a positive is multiplied by, to be broadcast.
        negative: the same of a negative.
        curve: the loss.
    """
    if t.dtype == torch.bool:  # a positive at x is a negative at -x
        term, slope = _negative_terms(
            _logistic(curve.gain * torch.where(t, -x, x) - curve.shift), curve
        )
        factor = torch.where(t, positive, negative)
        slope = factor * slope
        return factor * term, torch.where(t, -slope, slope)
    u = _logistic(curve.gain * x - curve.shift)
    mirrored = (u[1], u[0], u[3], u[2])
    if curve.shift:
        mirrored = _logistic(-curve.gain * x - curve.shift)
    of_negative, slope_of_negative = _negative_terms(u, curve)
    of_positive, slope_of_positive = _negative_terms(mirrored, curve)
    t = t.to(x.dtype)
    positive, negative = t * positive, (1 - t) * negative
    return (
        negative * of_negative + positive * of_positive,
        negative * slope_of_negative - positive * slope_of_positive,
    )


_Logistic = tuple[Tensor, Tensor, Tensor, Tensor]


def _logistic(v: Tensor) -> _Logistic:
    """Returns sigmoid(v), sigmoid(-v), softplus(v) and softplus(-v), from one exponential."""
    e = torch.exp(-v.abs())
    log1p, r = torch.log1p(e), 1 / (1 + e)
    above = v >= 0
    p, rest = torch.where(above, r, e * r), torch.where(above, e * r, r)
    return p, rest, v.clamp(min=0) + log1p, log1p - v.clamp(max=0)


def _negative_terms(logistic: _Logistic, curve: Curve) -> tuple[Tensor, Tensor]:
    """Returns the loss of negatives and its derivative; see ``_negatives``."""
    p, rest, s, minus_log_p = logistic
    slope = curve.power * rest * s + p if curve.power else p
    if curve.power == 2:
        s, slope = p * p * s, p * p * slope
    elif curve.power:
        focus = torch.exp(-curve.power * minus_log_p)
        s, slope = focus * s, focus * slope
    return s if curve.gain == 1 else s / curve.gain, slope


# --- the sum in one kernel ---


def kernel_arguments(level: Level) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns logits, labels, factor, negative and positive, contiguous, the last two (K, 1)."""
    of_class = (level.logits.shape[1], 1)
    return (
        level.logits,
        level.labels.contiguous(),
        level.factor.contiguous(),
        level.negative.expand(of_class).contiguous(),
        level.positive.expand(of_class).contiguous(),
    )


def suits_kernel(x: Tensor) -> bool:
    """Returns whether logits of (outer, K, inner) are rows that ``compiled_sum`` is faster with."""
    return x.device.type == "cpu" and x.shape[2] == 1 and x.shape[1] >= _KERNEL_CLASSES


def compiled_sum(level: Level, grad: Tensor) -> Tensor:
    """Returns the sum over rows, and fills the gradient, by one kernel of Inductor's.

    The kernel takes pieces of one size, so that no other size of map is compiled again; what is
    left is summed as if there were no kernel.
    """
    num_classes = level.logits.shape[1]
    size = max(1, _KERNEL_ENTRIES // num_classes)
    end = len(level.logits) // size * size
    logits, labels, factor, negative, positive = (
        value.squeeze(-1) for value in kernel_arguments(level)
    )
    total = torch.zeros((), dtype=torch.float64)
    if end:
        kernel = _kernel(level.curve)
    for start in range(0, end, size):
        piece = slice(start, start + size)
        rows = logits[piece], labels[piece], factor[piece], grad[piece, :, 0]
        total += kernel(*rows, negative, positive).sum(dtype=torch.float64)
    rest = slice(end, None)
    left = dataclasses.replace(
        level, logits=level.logits[rest], labels=level.labels[rest], factor=level.factor[rest]
    )
    return total + blocked_sum(left, grad[rest]) if len(left.logits) else total


@functools.cache
def _kernel(curve: Curve) -> Callable[..., Tensor]:
    """Returns the compiled sum over the classes of each row.

    Raises:
        UnavailableError: there is no C++ compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        raise UnavailableError(
            f"compiled=True of a loss: {' '.join(str(error).split())}",
            expected="a C++ compiler, such as g++, or the one that CXX names",
            hint="leave compiled=True out of loss_cls; the loss is the same",
        ) from None

    def sum_rows(
        x: Tensor, labels: Tensor, factor: Tensor, grad: Tensor, negative: Tensor, positive: Tensor
    ) -> Tensor:
        is_positive = labels == torch.arange(x.shape[1])
        of_class = torch.where(is_positive, positive, negative)
        terms, slopes = terms_and_slopes(
            x.to(factor.dtype), is_positive, factor * of_class, factor * of_class, curve
        )
        grad.copy_(slopes)
        return terms.sum(1)

    # Static: with dynamic sizes Inductor's cache of graphs was seen to return the kernel of another
    # gamma, and the kernel was slower by half.
    return torch.compile(sum_rows, dynamic=False)
