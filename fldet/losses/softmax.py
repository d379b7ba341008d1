"""The focal loss of a softmax, which can be called as ``torch.nn.functional.cross_entropy``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
from fldet.losses.examples import EVERYTHING, all_terms, can_sweep
from fldet.losses.sweep import ClosedForm, Slopes, by_pieces, quotient, total, traced_total

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
    kind = _Labels if has_labels else _Shares
    examples = kind(layout, target, index if ignored else None, weight, exponent, label_smoothing)
    if isinstance(exponent, float) and exponent == 0 and reduction != "positives":
        return examples.cross_entropy(input, reduction)
    if reduction == "none":
        return all_terms(examples.terms, input, layout).reshape(layout.example_shape)
    divisor = examples.divisor(reduction, background)
    others = target, weight, wanted_by(exponent, input)
    if can_sweep(input, *others):
        return total([by_pieces(examples.terms, layout, divisor, examples.closed(input))], [input])
    slopes = examples.slopes()
    if slopes is not None and can_sweep(input, *others, compiled=True):
        return traced_total(slopes, layout.blocks(input), divisor)
    return quotient(all_terms(examples.terms, input, layout).sum(), divisor)


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


@dataclass(frozen=True)
class _Shares:
    """Probabilities of the classes as targets, with the settings of the loss."""

    layout: Layout
    target: Tensor
    ignored: int | None  # the label that does not count; None if there is none
    weight: Tensor | None  # (K, 1)
    gamma: Exponent
    smoothing: float

    def terms(self, x: Tensor, piece: Piece) -> Tensor:
        """Returns the loss of a piece, (rows, 1, columns)."""
        rows, columns = piece
        shares = self.layout.blocks(self.target)[rows, :, columns].to(x.dtype)
        return _expected_over_classes(x, shares, self.gamma, self.weight, self.smoothing)

    def closed(self, inputs: Tensor) -> ClosedForm | None:
        """Returns the closed form of the sum over a piece; there is none."""
        del inputs
        return None

    def slopes(self) -> Slopes | None:
        """Returns the closed form for ``traced_total``; there is none."""
        return None

    def divisor(self, reduction: str, background: int | None) -> Tensor | float:
        """Returns what the sum is divided by: the number of examples."""
        del background
        return 1 if reduction == "sum" else max(1, self.layout.outer * self.layout.inner)

    def cross_entropy(self, inputs: Tensor, reduction: str) -> Tensor:
        """Returns the loss at gamma 0, which is torch's."""
        dtype = compute_dtype(inputs)
        return F.cross_entropy(
            inputs.to(dtype),
            self.target.to(dtype),
            None if self.weight is None else self.weight.view(-1),
            label_smoothing=self.smoothing,
            reduction=reduction,
        )


class _Labels(_Shares):
    """Labels as targets, with the settings of the loss."""

    def labels(self, piece: Piece = EVERYTHING) -> tuple[Tensor, Tensor | None]:
        """Returns the labels of a piece, (rows, 1, columns), and which count; None if all do."""
        labels = self.layout.of_examples(self.target)[piece[0], :, piece[1]].long()
        if self.ignored is None:
            return labels, None
        counts = labels != self.ignored
        return torch.where(counts, labels, 0), counts

    def terms(self, x: Tensor, piece: Piece) -> Tensor:
        """Returns the loss of a piece, (rows, 1, columns)."""
        y, counts = self.labels(piece)
        if counts is not None:  # what does not count may be anything, NaN too
            x = torch.where(counts, x, 0)
        if self.smoothing:
            one_hot = torch.zeros_like(x).scatter(1, y, 1.0)
            loss = _expected_over_classes(x, one_hot, self.gamma, self.weight, self.smoothing)
        else:
            loss = _of_labels(x, y, self.gamma)
            if self.weight is not None:
                loss = loss * self.weight[:, 0][y]
        return loss if counts is None else torch.where(counts, loss, 0)

    def divisor(self, reduction: str, background: int | None) -> Tensor | float:
        """Returns what the sum is divided by."""
        if reduction == "sum":
            return 1
        labels, counts = self.labels()
        if counts is None:
            counts = torch.ones_like(labels, dtype=torch.bool)
        if reduction == "positives":
            objects = counts if background is None else counts & (labels != background)
            return objects.sum().clamp(min=1)
        if self.weight is None:
            return counts.sum()
        return torch.where(counts, self.weight[:, 0][labels], 0).sum()

    def cross_entropy(self, inputs: Tensor, reduction: str) -> Tensor:
        """Returns the loss at gamma 0, which is torch's."""
        _, counts = self.labels()
        if counts is not None:  # what does not count may be anything, NaN too
            kept = self.layout.restored(counts.expand_as(self.layout.blocks(inputs)))
            inputs = torch.where(kept, inputs, 0)
        return F.cross_entropy(
            inputs.to(compute_dtype(inputs)),
            self.target.long(),
            None if self.weight is None else self.weight.view(-1),
            ignore_index=-100 if self.ignored is None else self.ignored,
            label_smoothing=self.smoothing,
            reduction=reduction,
        )

    def closed(self, inputs: Tensor) -> ClosedForm | None:
        """Returns the closed form of the sum over a piece, where there is one."""
        if self.smoothing or inputs.device.type != "cpu" or is_traced(inputs):
            return None
        low, high = inputs.detach().aminmax() if inputs.numel() else (0, 0)
        return partial(self._sum, bool(low > -_SAFE and high < _SAFE))

    def slopes(self) -> Slopes | None:
        """Returns the closed form for ``traced_total``, where there is one."""
        return None if self.smoothing or callable(self.gamma) else self._slopes

    def _slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss of each example, (outer, 1, inner), and its derivative by the logits.

        The formulas are those of ``_sum``; nothing is gathered or scattered, so that a compiler
        makes few loops of it.
        """
        y, counts = self.labels()
        own_class = self.layout.of_examples(self.target) == torch.arange(
            x.shape[1], device=x.device
        ).view(-1, 1)
        shifted = x - x.amax(1, keepdim=True)
        exp = shifted.exp()
        own = torch.where(own_class, shifted, 0).sum(1, keepdim=True)
        rest, own_exp = torch.where(own_class, 0, exp).sum(1, keepdim=True), own.exp()
        whole = rest + own_exp
        log_p = torch.where(rest < own_exp, -torch.log1p(rest / own_exp), own - whole.log())
        q = rest.clamp(min=torch.finfo(x.dtype).tiny) / whole
        gamma = _at_labels(self.gamma, y, log_p)
        scaled = q**gamma
        if self.weight is not None:
            scaled = scaled * self.weight[:, 0][y]
        slope = scaled * (1 - gamma * log_p * (own_exp / whole) / q)
        terms, slopes = -scaled * log_p, torch.where(own_class, -slope * q, exp * (slope / whole))
        if counts is None:
            return terms, slopes
        # what does not count may be anything, NaN too
        return torch.where(counts, terms, 0), torch.where(counts, slopes, 0)

    def _sum(
        self, is_safe: bool, x: Tensor, piece: Piece, scale: Tensor, grad: Tensor | None
    ) -> Tensor:
        """Returns the sum over a piece, and fills its gradient.

        With q = 1 - p_y the loss is ``-q^gamma log p_y``, its derivative by a logit
        ``q^gamma (1 - gamma p_y log(p_y) / q)`` times ``p_c``, and times ``-q`` for the label's.
        What belongs to q is added up without p_y, which would take its digits.
        """
        y, counts = self.labels(piece)
        if counts is not None:
            x = torch.where(counts, x, 0)
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
        gamma = _at_labels(self.gamma, y, log_p)
        scaled = q**gamma * scale
        if self.weight is not None:
            scaled = scaled * self.weight[:, 0][y]
        if counts is not None:
            scaled = torch.where(counts, scaled, 0)
        if grad is not None:
            slope = scaled * (1 - gamma * log_p * log_p.exp() / q)
            others.mul_(slope / whole).scatter_(1, y, -slope * q)
            if others is not grad:
                grad.copy_(others)
        return -(scaled * log_p).sum()


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
