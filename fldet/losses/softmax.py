"""The focal loss of a softmax, which can be called as ``torch.nn.functional.cross_entropy``."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses import binary
from fldet.losses.elements import (
    Exponent,
    Gamma,
    Layout,
    Piece,
    check_gamma,
    check_integers,
    check_label_range,
    check_logits,
    check_reduction,
    check_shares,
    compute_dtype,
    exponent_of,
    gamma_at,
    held_by,
    is_traced,
    layout_of,
    of_classes,
    wanted_by,
)
from fldet.losses.examples import all_terms, can_sweep
from fldet.losses.sweep import by_pieces, total

_SAFE = 60.0  # logits whose exponentials can be added up in float32


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    gamma: Gamma = 2.0,
    weight: Tensor | Sequence[float] | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    background: int | None = None,
) -> Tensor:
    """Returns the focal loss of a softmax over K classes, ``-(1 - p_y)^gamma log(p_y)``.

    It is called as ``torch.nn.functional.cross_entropy``, and equals it at gamma 0. Probabilities
    as targets, and smoothed labels, give the expectation over the classes,
    ``sum_c t_c w_c (1 - p_c)^gamma (-log p_c)``.

    Args:
        input: logits, (K,), (N, K) or (N, K, d1, ...); half types are computed in float32.
        target: integer labels 0..K-1 of the shape () or (N,) or (N, d1, ...); or the probability of
            each class, of the shape of the logits.
        gamma: focusing strength, >= 0: a number, one for each class, or a function of the
            probability of the class (detached).
        weight: factor of each class, (K,); see ``class_balanced_weights``.
        ignore_index: the label of what does not count; None if there is none.
        label_smoothing: in [0, 1], the share of the target that is spread over all classes.
        reduction: ``none``; ``sum``; ``mean``, over the sum of the weights of the labels, as torch
            does (over the number of examples for probabilities); ``positives``, over the number of
            labels that count and are not ``background``, at least 1.
        background: the label that ``positives`` does not count; None if there is none.

    Returns:
        In nats, >= 0, float32 or float64: of the shape of the labels, or a scalar; NaN for the mean
        of no label, as torch's. Reduced, its gradient cannot be differentiated again; that of
        ``none`` can.

    Raises:
        ValueError: shapes do not fit, or an argument or a label is out of range.
    """
    check_reduction(reduction)
    check_logits(input)
    check_gamma(gamma)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    if not input.dim():
        raise ValueError("expected logits of at least one dimension, got a scalar")
    layout = layout_of(input, min(1, input.dim() - 1))
    index = held_by(target.dtype, ignore_index)
    has_labels, ignored = _check_classes(input, target, layout, index)
    if weight is not None:
        weight = of_classes(weight, layout, "a weight", input)
    exponent = exponent_of(gamma, layout, input)
    counted = None
    if has_labels:
        labels = layout.of_examples(target)
        if ignored and index is not None:
            counted = torch.ne(labels, index)
            labels = torch.where(counted, labels, 0)
    if isinstance(exponent, float) and exponent == 0 and reduction != "positives":
        if counted is not None:  # what does not count may be anything, NaN too
            kept = layout.restored(counted.expand_as(layout.blocks(input)))
            input = torch.where(kept, input, 0)
        return F.cross_entropy(
            input.to(compute_dtype(input)),
            target.long() if has_labels else target.to(compute_dtype(input)),
            None if weight is None else weight.view(-1),
            ignore_index=-100 if index is None or not has_labels else index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    if not has_labels:
        shares = layout.blocks(target)

    def terms(x: Tensor, piece: Piece) -> Tensor:
        rows, columns = piece
        if not has_labels:
            return _expected_over_classes(
                x, shares[rows, :, columns].to(x.dtype), exponent, weight, label_smoothing
            )
        y = labels[rows, :, columns].long()
        if counted is not None:  # what does not count may be anything, NaN too
            x = torch.where(counted[rows, :, columns], x, 0)
        if label_smoothing:
            one_hot = torch.zeros_like(x).scatter(1, y, 1.0)
            loss = _expected_over_classes(x, one_hot, exponent, weight, label_smoothing)
        else:
            loss = _of_labels(x, y, exponent)
            if weight is not None:
                loss = loss * weight[:, 0][y]
        return loss if counted is None else torch.where(counted[rows, :, columns], loss, 0)

    if reduction == "none":
        return all_terms(terms, input, layout).reshape(layout.example_shape)
    closed = None
    if has_labels and not label_smoothing and input.device.type == "cpu":
        closed = partial(_closed_of_labels, labels, counted, weight, exponent, _is_safe(input))
    divisor: Tensor | float = layout.outer * layout.inner
    if reduction == "sum":
        divisor = 1
    elif not has_labels:
        divisor = max(1, divisor)
    elif reduction == "positives":
        objects = torch.ones_like(labels, dtype=torch.bool) if counted is None else counted
        if background is not None:
            objects = objects & (labels != background)
        divisor = objects.sum().clamp(min=1)
    elif weight is not None:
        weights = weight[:, 0][labels.long()]
        divisor = (weights if counted is None else torch.where(counted, weights, 0)).sum()
    elif counted is not None:
        divisor = counted.sum()
    if can_sweep(input, target, weight, wanted_by(exponent, input)):
        return total([by_pieces(terms, layout, divisor, closed)], [input])
    return all_terms(terms, input, layout).sum() / divisor


def _check_classes(
    inputs: Tensor, target: Tensor, layout: Layout, ignore_index: int | None
) -> tuple[bool, bool]:
    """Returns whether targets are labels, not probabilities, and whether some may be ignored.

    Raises:
        ValueError: they are neither; or something is out of range.
    """
    known = not is_traced(inputs) and not is_traced(target)
    if target.is_floating_point() and target.shape == inputs.shape:
        if known:
            check_shares(target, None)
        return False, False
    if target.shape != layout.example_shape or target.is_floating_point():
        raise ValueError(
            f"expected labels of shape {tuple(layout.example_shape)} or probabilities of shape "
            f"{tuple(inputs.shape)}, got {target.dtype} of shape {tuple(target.shape)}"
        )
    check_integers(target)
    return True, not known or check_label_range(target, layout.num_classes - 1, ignore_index, "")


def _of_labels(x: Tensor, y: Tensor, gamma: Exponent) -> Tensor:
    """Returns the loss of labels, (rows, 1, columns): Eq. 4 of ``x_t = log(p_y / (1 - p_y))``.

    Args:
        x: logits, (rows, K, columns).
        y: labels, (rows, 1, columns).
        gamma: a number, (K, 1), or a function.
    """
    if x.shape[1] == 1:
        return torch.zeros_like(x) * x  # p is 1
    if torch.compiler.is_compiling() and isinstance(gamma, (int, float)):
        # half the memory of the other way once it is compiled; a p near 1 loses digits
        entropy = F.cross_entropy(x, y[:, 0], reduction="none").unsqueeze(1)
        rest = (-torch.expm1(-entropy)).clamp(min=torch.finfo(x.dtype).tiny)
        return entropy * rest**gamma
    # a class that is ruled out by a logit of -inf: its slope is 0, and not that of -inf
    odds = _log_odds(x.clamp(min=torch.finfo(x.dtype).min / 8), y)
    return binary.focal_of(odds, _at_labels(gamma, y, F.logsigmoid(odds)))


def _at_labels(gamma: Exponent, y: Tensor, log_p: Tensor) -> float | Tensor:
    """Returns the gamma of labels, (rows, 1, columns), or of all of them."""
    if isinstance(gamma, Tensor) and gamma.dim():
        return gamma[:, 0][y]
    return gamma_at(gamma, log_p.exp())


def _log_odds(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``log(p_y / (1 - p_y))``, which has all digits where p is 1 to as many."""
    lowest = torch.finfo(x.dtype).min / 4
    return x.gather(1, y) - x.scatter(1, y, lowest).logsumexp(1, keepdim=True)


def _is_safe(logits: Tensor) -> bool:
    """Returns whether the exponentials of all logits can be added up as they are."""
    if is_traced(logits) or not logits.numel():
        return False
    low, high = torch.stack(logits.detach().aminmax()).tolist()
    return bool(-_SAFE < low <= high < _SAFE)


def _closed_of_labels(
    labels: Tensor,
    counted: Tensor | None,
    weight: Tensor | None,
    gamma: Exponent,
    is_safe: bool,
    x: Tensor,
    piece: Piece,
    scale: Tensor,
    grad: Tensor | None,
) -> Tensor:
    """Returns the sum of ``_of_labels`` over a piece, and fills its gradient.

    With q = 1 - p_y the loss is ``-q^gamma log p_y``, its derivative by a logit
    ``q^gamma (1 - gamma p_y log(p_y) / q)`` times ``p_c``, and times ``-q`` for the label's. What
    belongs to q is added up without p_y, which would take its digits.
    """
    rows, columns = piece
    y = labels[rows, :, columns].long()
    if counted is not None:
        x = torch.where(counted[rows, :, columns], x, 0)
    out = None if grad is None or grad.dtype != x.dtype else grad
    if is_safe:  # no exponential over- or underflows
        own = x.gather(1, y)
        others = torch.exp(x, out=out)
    else:
        shifted = torch.sub(x, x.amax(1, keepdim=True), out=out)
        own = shifted.gather(1, y)
        others = shifted.exp_()
    others.scatter_(1, y, 0.0)
    rest, own_exp = others.sum(1, keepdim=True), own.exp()
    whole = rest + own_exp
    log_p = torch.where(rest < own_exp, -torch.log1p(rest / own_exp), own - whole.log())
    q = rest.clamp(min=torch.finfo(x.dtype).tiny) / whole
    gamma = _at_labels(gamma, y, log_p)
    scaled = q**gamma * scale
    if counted is not None:
        scaled = scaled * counted[rows, :, columns]
    if weight is not None:
        scaled = scaled * weight[:, 0][y]
    value = -(scaled * log_p).sum()
    if grad is not None:
        slope = scaled * (1 - gamma * log_p * log_p.exp() / q)
        others.mul_(slope / whole).scatter_(1, y, -slope * q)
        if others is not grad:
            grad.copy_(others)
    return value


def _expected_over_classes(
    x: Tensor, shares: Tensor, gamma: Exponent, weight: Tensor | None, label_smoothing: float
) -> Tensor:
    """Returns ``sum_c t_c w_c (1 - p_c)^gamma (-log p_c)``, (rows, 1, columns)."""
    if label_smoothing:
        shares = (1 - label_smoothing) * shares + label_smoothing / x.shape[1]
    log_p = F.log_softmax(x, 1)
    if x.shape[1] == 1:
        return log_p * 0.0  # p is 1
    best = x.argmax(1, keepdim=True)
    odds = _log_odds(x, best)
    log_p = log_p.scatter(1, best, F.logsigmoid(odds))
    gamma = gamma_at(gamma, log_p.exp())
    half = torch.full_like(odds, -math.log(2))
    log_rest = torch.log1p(-log_p.scatter(1, best, half).exp())
    log_rest = log_rest.scatter(1, best, F.logsigmoid(-odds))
    loss = -log_p * torch.exp(gamma * log_rest) * shares
    return (loss if weight is None else loss * weight).sum(1, keepdim=True)
