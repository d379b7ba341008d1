"""What is judged, what a check is, and what comes out of one."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Bound = Callable[[Tensor, Tensor], Tensor]  # of logits and targets

# What a reduction may differ by from what it is made of, in float32, to be called equal.
SAME = 1e-4


class Fault(Exception):  # noqa: N818 - of the loss that is judged
    """What a loss does wrong, in words."""


class NotApplicable(Exception):  # noqa: N818 - nothing went wrong
    """Why a check says nothing about a loss."""


@dataclass(frozen=True)
class Judged:
    """A loss and how it is called.

    Attributes:
        name: as it was asked for.
        version: of its package.
        form: ``sigmoid``, or ``softmax`` over dimension 1.
        bind: returns the loss with its settings, ``alpha`` (None for none), ``gamma``,
            ``reduction`` (``none``, ``mean``, ``sum``) and options, as a function of logits and
            targets. Those of the sigmoid form have the shape of the logits.
        options: what it takes beside: ``ignore_index``, ``weight``, ``class_weight``.
    """

    name: str
    version: str
    form: str
    bind: Callable[..., Bound]
    options: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_softmax(self) -> bool:
        """Whether the classes exclude each other."""
        return self.form == "softmax"

    def bound(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        reduction: str = "none",
        **options: Any,
    ) -> Bound:
        """Returns the loss with settings, as a function of logits and targets."""
        return self.bind(alpha=alpha, gamma=gamma, reduction=reduction, **options)

    def __call__(self, x: Tensor, t: Tensor, **settings: Any) -> Tensor:
        """Returns the loss; it gets a copy of the targets, which another check may need."""
        return self.bound(**settings)(x, t.clone())

    def of_examples(self, x: Tensor, t: Tensor, **settings: Any) -> Tensor:
        """Returns the unreduced loss: of each logit, or of each example of a softmax."""
        loss = self(x, t, **settings)
        if self.is_softmax and loss.shape == x.shape:  # a map that is 0 beside the target
            loss = loss.sum(1)
        shape = x.shape if not self.is_softmax else (*x.shape[:1], *x.shape[2:])
        return loss.reshape(shape)

    def gradients(self, x: Tensor, t: Tensor, **settings: Any) -> dict[str, Tensor]:
        """Returns the gradient of the sum of the losses by each reduction that gives it.

        ``sum`` is left out where it is not that sum; the check of reductions has this.
        """
        found, sums = {}, {}
        for reduction in ("none", "sum"):
            logits = x.detach().clone().requires_grad_()
            value = self(logits, t, reduction=reduction, **settings).sum()
            found[reduction] = torch.autograd.grad(value, logits)[0]
            sums[reduction] = float(value.detach())
        away = abs(sums["sum"] - sums["none"])
        if away > SAME * (1 + abs(sums["none"])):
            del found["sum"]
        return found


@dataclass(frozen=True)
class Check:
    """One thing that a loss should do.

    Attributes:
        name: short.
        right: a sentence, what is right.
        run: returns what is worth saying, or raises Fault or NotApplicable.
        measures: whether the answer is a figure, with nothing that is right or wrong.
    """

    name: str
    right: str
    run: Callable[[Judged], str]
    measures: bool = False


@dataclass(frozen=True)
class Result:
    """What came out of a check.

    Attributes:
        check: its name.
        verdict: ``ok``, ``fails``, ``-`` where it does not apply, ``is`` for a figure.
        detail: why; the figure.
    """

    check: str
    verdict: str
    detail: str


def results_of(judged: Judged, checks: Iterable[Check]) -> list[Result]:
    """Returns what came out of each check; whatever a loss raises is an answer."""
    return [_result_of(judged, check) for check in checks]


def _result_of(judged: Judged, check: Check) -> Result:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            detail = check.run(judged)
    except NotApplicable as why:
        return Result(check.name, "-", str(why))
    except Fault as fault:
        return Result(check.name, "fails", str(fault))
    except Exception as error:
        return Result(check.name, "fails", in_words(error))
    return Result(check.name, "is" if check.measures else "ok", detail)


def in_words(error: Exception) -> str:
    """Returns the kind of an error and the first line of its message."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first if len(first) < 120 else first[:117] + '...'}"
