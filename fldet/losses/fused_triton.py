"""The kernel of ``fldet.losses.fused`` for CUDA, in Triton: one read, one write, one sum."""

from typing import Any

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

_BLOCK = 1024


def triton_sum(
    logits: Tensor,
    labels: Tensor,
    factor: Tensor,
    negative: Tensor,
    positive: Tensor,
    curve: Any,
    grad: Tensor | None,
) -> Tensor:
    """Returns the sum of a level, in float64, and fills the gradient.

    The sums of the blocks are written side by side and added by torch, in the same order each time.

    Args:
        logits: (outer, K, inner), contiguous, not float64; computed in float32.
        labels: (outer, 1, inner) integers, K for background.
        factor: (outer, 1, inner) float32.
        negative: (K, 1) float32 factor of the negatives of each class.
        positive: (K, 1) that of the positives.
        curve: a ``fldet.losses.formulas.Curve``.
        grad: like ``logits``, or None.
    """
    size = logits.numel()
    num_blocks = triton.cdiv(size, _BLOCK)
    sums = torch.empty(num_blocks, dtype=torch.float32, device=logits.device)
    # Triton launches on the current device, wherever its arguments are.
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _kernel[(num_blocks,)](
            logits,
            labels,
            factor,
            negative,
            positive,
            sums,
            logits if grad is None else grad,
            size,
            logits.shape[1],
            logits.shape[2],
            float(curve.power),
            float(curve.gain),
            float(curve.shift),
            NEED_GRAD=grad is not None,
            BIG=size >= 2**31 - _BLOCK,
            BLOCK=_BLOCK,
        )
    return sums.sum(dtype=torch.float64)


@triton.jit
def _kernel(  # type: ignore[no-untyped-def]
    logits,
    labels,
    factor,
    negative,
    positive,
    sums,
    grad,
    size,
    num_classes,
    inner,
    power,
    gain,
    shift,
    NEED_GRAD: tl.constexpr,  # noqa: N803
    BIG: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One block of adjacent entries; the formulas are those of ``_negatives``."""
    block = tl.program_id(0)
    at = (block.to(tl.int64) if BIG else block) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    cls = at // inner % num_classes
    anchor = at // (inner * num_classes) * inner + at % inner
    x = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32)
    is_positive = tl.load(labels + anchor, mask=inside, other=0) == cls
    alpha_t = tl.where(
        is_positive,
        tl.load(positive + cls, mask=inside, other=0.0),
        tl.load(negative + cls, mask=inside, other=0.0),
    )
    v = gain * tl.where(is_positive, -x, x) - shift
    e = tl.exp(-tl.abs(v))
    u = 1 + e
    # log1p(e) without a library: the division takes the rounding of u back.
    log1p = tl.where(u == 1, e, tl.log(u) * (e / tl.where(u == 1, 1.0, u - 1)))
    p = tl.where(v >= 0, 1 / u, e / u)
    rest = tl.where(v >= 0, e / u, 1 / u)  # 1 - p
    s = tl.maximum(v, 0.0) + log1p
    q = alpha_t * tl.load(factor + anchor, mask=inside, other=0.0)
    q = q * tl.exp(power * (tl.minimum(v, 0.0) - log1p))
    tl.store(sums + block, tl.sum(tl.where(inside, q * s, 0.0)) / gain)
    if NEED_GRAD:
        slope = q * (power * rest * s + p)
        tl.store(grad + at, tl.where(is_positive, -slope, slope), mask=inside)
