"""Checks of what torch makes of a loss: graphs, batches, second derivatives."""

import torch
from torch import Tensor

from fldet.losses.conformance.contract import Check, Fault, Judged, in_words
from fldet.losses.conformance.reference import random_examples, reference


def compiled(judged: Judged) -> str:
    """Captures the loss in one graph and compares it with what it is without."""
    x, t = random_examples(judged, (6, 4))
    for reduction in ("none", "mean"):
        loss = judged.bound(reduction=reduction)
        torch._dynamo.reset()
        in_graph = torch.compile(loss, fullgraph=True, backend="aot_eager")
        found = []
        for function in (loss, in_graph):
            logits = x.clone().requires_grad_()
            value = function(logits, t.clone()).sum()
            found.append((value.detach(), torch.autograd.grad(value, logits)[0]))
        _check_equal(found[1], found[0], reduction)
    return ""


def vmapped(judged: Judged) -> str:
    """Maps the loss and its gradient over a batch and compares them with a loop."""
    pairs = [random_examples(judged, (6, 4), seed=seed) for seed in range(3)]
    x, t = torch.stack([x for x, _ in pairs]), torch.stack([t for _, t in pairs])
    for reduction in ("none", "mean"):
        loss = judged.bound(reduction=reduction)

        def summed(x: Tensor, t: Tensor) -> Tensor:
            return loss(x, t).sum()  # noqa: B023

        both = torch.func.grad_and_value(summed)
        try:
            slopes, sums = torch.func.vmap(both)(x, t)
        except Exception as error:
            raise Fault(f"by {reduction}: {in_words(error)}") from error
        looped = []
        for one, labels in pairs:
            logits = one.clone().requires_grad_()
            value = summed(logits, labels)
            looped.append((value.detach(), torch.autograd.grad(value, logits)[0]))
        right = tuple(torch.stack(each) for each in zip(*looped, strict=True))
        _check_equal((sums, slopes), (right[0], right[1]), reduction)
    return ""


def _check_equal(found: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], by: str) -> None:
    for what, one, other in zip(("loss", "gradient"), found, right, strict=True):
        if not torch.allclose(one, other, rtol=1e-5, atol=1e-6):
            away = float((one - other).abs().max())
            raise Fault(f"the {what} by {by} is off by {away:.2g}")


def second_derivatives(judged: Judged) -> str:
    """Compares the derivative of the gradient, along one direction, with float64's."""
    x, t = random_examples(judged, (6, 4), torch.float64)
    direction = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    logits = x.clone().requires_grad_()
    right = _curvature(reference(judged, logits, t, gamma=2.0).sum(), logits, direction)
    refuses = []
    for reduction in ("none", "sum"):
        logits = x.clone().requires_grad_()
        value = judged(logits, t, reduction=reduction).sum()
        try:
            found = _curvature(value, logits, direction)
        except RuntimeError:
            refuses.append(reduction)
            continue
        if reduction == "sum" and not torch.allclose(
            value.double(), judged(x, t).sum().double(), rtol=1e-4
        ):
            continue  # another check's
        away = float((found.double() - right).abs().max())
        if not away <= 1e-3:
            raise Fault(f"by {reduction} off by {away:.2g}")
    if len(refuses) == 2 or "none" in refuses:
        raise Fault("none cannot be differentiated twice")
    return f"{refuses[0]} refuses" if refuses else ""


def _curvature(value: Tensor, logits: Tensor, direction: Tensor) -> Tensor:
    grad = torch.autograd.grad(value, logits, create_graph=True)[0]
    return torch.autograd.grad((grad * direction).sum(), logits)[0]


CHECKS = (
    Check(
        "torch.compile",
        "torch.compile(fullgraph=True, backend='aot_eager') captures it, with equal loss and "
        "gradient.",
        compiled,
    ),
    Check("vmap", "torch.func.vmap maps loss and gradient over a batch, equal to a loop.", vmapped),
    Check(
        "second derivatives",
        "The gradient can be differentiated again, right to 1e-3; sum may refuse it by an error.",
        second_derivatives,
    ),
)
