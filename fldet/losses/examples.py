"""Logits over K independent sigmoids with targets and weights: what the losses of them share."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from fldet.losses.elements import (
    Layout,
    Piece,
    check_label_range,
    check_logits,
    check_reduction,
    check_shares,
    check_targets,
    class_dim_of,
    compute_dtype,
    held_by,
    is_traced,
    layout_of,
    of_classes,
)
from fldet.losses.sweep import (
    Terms,
    WithSlopes,
    by_pieces,
    quotient,
    total,
    traced_total,
)

EVERYTHING: Piece = (slice(None), slice(None))
Formula = Callable[[Tensor, Tensor], Tensor]


class Examples:
    """Logits over K independent sigmoids with their targets, checked and laid out.

    Args:
        inputs: logits, see ``sigmoid_focal_loss``; so are the rest.
        targets: of them.
        weight: of an example, or of a logit.
        class_weight: one for each class.
        ignore_index: the target of what does not count; None if there is none.
        class_dim: the dimension of the classes.

    Raises:
        ValueError: see ``sigmoid_focal_loss``.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
    ) -> None:
        check_logits(inputs)
        flat = inputs.dim() < 2 and targets.shape == inputs.shape
        dim = None if flat else class_dim_of(inputs, targets, class_dim)
        shares_fit_both = (
            class_dim is None
            and inputs.dim() > 2
            and targets.shape == inputs.shape
            and inputs.shape[1] == inputs.shape[-1]
        )
        self.inputs = inputs
        self.layout = layout_of(inputs, dim, shares_fit_both)
        check_targets(inputs, targets, self.layout)
        self.has_labels = targets.shape != inputs.shape
        self.known = not is_traced(inputs) and not is_traced(targets)
        self.ignore_index = ignore_index = held_by(targets.dtype, ignore_index)
        ignored = ignore_index is not None
        highest = self.layout.num_classes
        if self.has_labels:
            if self.known:
                says = f" ({highest} is background)"
                ignored = check_label_range(targets, highest, ignore_index, says)
            self.targets = self.layout.of_examples(targets)
        else:
            if self.known:
                ignored = check_shares(targets, ignore_index)
            self.targets = self.layout.blocks(targets)
        self.ignores = ignored  # whether there may be targets that do not count
        self.weight = None if weight is None else self._weight_blocks(weight)
        self.class_weight = None
        if class_weight is not None:
            self.class_weight = of_classes(class_weight, self.layout, "a class weight", inputs)

    def can_sweep(self, *settings: object, compiled: bool = False) -> bool:
        """Returns whether a sum can be made with its gradient, that of the logits alone.

        Args:
            settings: of the loss; a tensor that wants a gradient gets autograd's.
            compiled: by ``traced_total``, not piece by piece.
        """
        others = self.targets, self.weight, self.class_weight, *settings
        return can_sweep(self.inputs, *others, compiled=compiled)

    def _weight_blocks(self, weight: Tensor) -> Tensor:
        if not isinstance(weight, Tensor):
            raise ValueError(f"expected a tensor of weights, got {type(weight).__name__}")
        if self.layout.is_guess and weight.shape == self.layout.example_shape:
            raise ValueError(
                "expected weights of logits, or class_dim beside weights of examples: the classes "
                f"may be in dimension 1 of {tuple(self.layout.shape)} or in the last"
            )
        if weight.shape == self.layout.example_shape:
            return self.layout.of_examples(weight)
        if weight.shape == self.layout.shape:
            return self.layout.blocks(weight)
        raise ValueError(
            f"expected a weight for each logit, {tuple(self.layout.shape)}, or for each example, "
            f"{tuple(self.layout.example_shape)}, got {tuple(weight.shape)}"
        )

    def counts(self, piece: Piece = EVERYTHING) -> Tensor | None:
        """Returns which targets of a piece count, None if all do."""
        if not self.ignores or self.ignore_index is None:
            return None
        return torch.ne(self.targets[piece[0], :, piece[1]], self.ignore_index)

    def shares(self, piece: Piece = EVERYTHING) -> Tensor:
        """Returns the targets of a piece for each logit, zeros and ones as booleans for labels."""
        rows, columns = piece
        targets = self.targets[rows, :, columns]
        if not self.has_labels:
            return targets
        classes = torch.arange(self.layout.num_classes, device=targets.device)
        return targets == classes.view(-1, 1)

    def divisor(self, reduction: str) -> Tensor | float:
        """Returns what the sum is divided by."""
        if reduction not in ("mean", "positives"):
            return 1
        counted = self.counts()
        if reduction == "mean":
            if counted is None:
                return max(1, self.inputs.numel())
            per_target = self.layout.num_classes if self.has_labels else 1
            return counted.sum().clamp(min=1) * per_target
        if self.has_labels:
            positive = (self.targets >= 0) & (self.targets < self.layout.num_classes)
        else:
            positive = self.targets
        if counted is not None:
            positive = torch.where(counted, positive, torch.zeros_like(positive))
        return positive.sum(dtype=compute_dtype(self.inputs)).clamp(min=1)

    def factor(self, piece: Piece) -> Tensor | None:
        """Returns what the loss of each logit of a piece is multiplied by, to be broadcast."""
        rows, columns = piece
        factor = self.class_weight
        if self.weight is not None:
            weight = self.weight[rows, :, columns].to(compute_dtype(self.inputs))
            factor = weight if factor is None else weight * factor
        return factor

    def terms(self, formula: Formula, x: Tensor, piece: Piece) -> Tensor:
        """Returns the weighted loss of a piece of the logits."""
        shares, counts, factor = self.shares(piece), self.counts(piece), self.factor(piece)
        if counts is None:
            loss = formula(x, shares)
            return loss if factor is None else loss * factor
        # what does not count may be anything, NaN too
        shares = shares & counts if self.has_labels else torch.where(counts, shares, 0)
        loss = formula(torch.where(counts, x, 0), shares)
        return torch.where(counts, loss if factor is None else loss * factor, 0)

    def loss(
        self,
        formula: Formula,
        reduction: str,
        closed: WithSlopes | None = None,
        settings: Sequence[object] = (),
    ) -> Tensor:
        """Returns the loss of a formula of logits and targets of the same shape, reduced.

        Args:
            formula: elementwise.
            reduction: see ``sigmoid_focal_loss``.
            closed: the same summed, if there is a closed form.
            settings: of the formula, as for ``can_sweep``.
        """
        check_reduction(reduction)
        terms = partial(self.terms, formula)
        if reduction == "none":
            return self.layout.restored(all_terms(terms, self.inputs, self.layout))
        divisor = self.divisor(reduction)
        if self.can_sweep(*settings):
            return total([by_pieces(terms, self.layout, divisor, closed)], [self.inputs])
        if closed is not None and self.can_sweep(*settings, compiled=True):
            return traced_total(closed.slopes, self.layout.blocks(self.inputs), divisor)
        return quotient(all_terms(terms, self.inputs, self.layout).sum(), divisor)


def all_terms(terms: Terms, inputs: Tensor, layout: Layout) -> Tensor:
    """Returns the terms of all logits, as they are laid out, with autograd's own gradient."""
    kind = inputs.device.type
    has_autocast = torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if has_autocast else nullcontext():
        return terms(layout.blocks(inputs).to(compute_dtype(inputs)), EVERYTHING)


def can_sweep(inputs: Tensor, *others: object, compiled: bool = False) -> bool:
    """Returns whether a sum can be made with its gradient, in the forward pass.

    Args:
        inputs: the logits.
        others: what else is in the sum; no tensor of it may want a gradient.
        compiled: by ``traced_total``, not piece by piece.
    """
    if any(isinstance(one, Tensor) and one.requires_grad for one in others):
        return False
    if compiled:
        return (
            torch.compiler.is_compiling()
            and not torch.compiler.is_exporting()
            and not torch._C._are_functorch_transforms_active()
        )
    return inputs.device.type in ("cpu", "cuda") and not is_traced(inputs)
