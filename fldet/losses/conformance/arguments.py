"""Checks of what a loss accepts, and of what it does with it."""

from collections.abc import Callable
from typing import Any

import torch

from fldet.losses.conformance.contract import SAME, Check, Fault, Judged, NotApplicable
from fldet.losses.conformance.reference import random_examples, reference


def _raises(function: Callable[[], Any]) -> bool:
    try:
        function()
    except Exception:
        return True
    return False


def reductions(judged: Judged) -> str:
    """Compares sum and mean with what ``none`` returns, and its shape with that of the examples."""
    for shape in ((3, 4), (3, 4, 5)):
        x, t = random_examples(judged, shape)
        each = judged(x, t)
        if each.shape not in (x.shape, t.shape):
            raise Fault(f"none has shape {tuple(each.shape)} for logits {shape}")
        for reduction, right in (("sum", float(each.sum())), ("mean", float(each.mean()))):
            value = judged(x, t, reduction=reduction)
            if value.dim() or abs(float(value) - right) > SAME * (1 + abs(right)):
                raise Fault(
                    f"{reduction} of logits {shape} is {value.flatten()[0].item():.4f}, that of "
                    f"what none returns {right:.4f}"
                )
    return ""


def target_shapes(judged: Judged) -> str:
    """Offers targets of shapes that do not fit."""
    shape: tuple[int, ...] = (3, 4)
    wrong: tuple[tuple[int, ...], ...] = ((3, 1), (1, 4), (4,), (4, 3))
    if judged.is_softmax:
        shape, wrong = (2, 3, 4), ((4, 2), (2, 1), (1, 4), (2,))
    x, _ = random_examples(judged, shape)
    for other in wrong:
        t = torch.zeros(other, dtype=torch.int64 if judged.is_softmax else x.dtype)
        if not _raises(lambda t=t: judged(x, t, reduction="sum")):  # type: ignore[misc]
            raise Fault(f"targets of shape {other} pass for logits of {shape}")
    return ""


def weight_shapes(judged: Judged) -> str:
    """Offers weights of shapes that do not fit, or only by broadcasting."""
    if not judged.options & {"weight", "class_weight"}:
        raise NotApplicable("takes no weight")
    x, t = random_examples(judged, (3, 4))
    each = judged.of_examples(x, t)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "weight": ((4, 1), (1, 5), (5,), (2, 3), (3, 1), (1, 3), (1,)),
        "class_weight": ((5,), (3,), (2,), (1,), (4, 2)),
    }
    for option in sorted(judged.options & set(shapes)):
        for shape in shapes[option]:
            weight = torch.arange(2, 2 + torch.Size(shape).numel(), dtype=x.dtype).reshape(shape)
            try:
                value = float(judged(x, t, **{option: weight}).sum())
            except Exception:
                continue
            # what is broadcast over the losses may weigh what it stands for
            fits = len(shape) <= each.dim() and all(
                own in (1, other) for own, other in zip(shape[::-1], each.shape[::-1], strict=False)
            )
            right = float((each * weight).sum()) if fits else float("nan")
            if not abs(value - right) <= SAME * (1 + abs(right)):
                what = option.replace("_", " ")
                raise Fault(f"a {what} of shape {shape} passes for logits of {tuple(x.shape)}")
    return ""


def target_range(judged: Judged) -> str:
    """Offers labels that there are not."""
    x, t = random_examples(judged, (3, 4))
    for label in (4, -1) if judged.is_softmax else (2, -1):
        wrong = t.clone()
        wrong[0] = label
        try:
            value = float(judged(x, wrong, reduction="sum"))
        except Exception:
            continue
        raise Fault(f"a target of {label} passes, the loss is {value:.4f}")
    return ""


def ignored_targets(judged: Judged) -> str:
    """Compares the losses and gradients of the rest with those without what is ignored."""
    if "ignore_index" not in judged.options:
        raise NotApplicable("has none")
    x, t = random_examples(judged, (6, 4))
    each = reference(judged, x, t, gamma=2.0)
    counts = torch.ones_like(each, dtype=torch.bool)
    counts[1] = False
    padded = x.clone()
    padded[1] = 50
    for index in (-100, 255):
        ignoring = torch.where(counts, t, index)
        logits = padded.clone().requires_grad_()
        value = judged(logits, ignoring, ignore_index=index).sum()
        grad = torch.autograd.grad(value, logits)[0]
        right = float(each[counts].sum())
        if not abs(float(value.detach()) - right) <= SAME * (1 + right):
            raise Fault(f"index {index}: the loss of the rest is {value:.4f}, not {right:.4f}")
        if not bool((grad[1] == 0).all()):
            raise Fault(f"index {index}: the gradient of what is ignored is {grad[1].tolist()}")
    return ""


def empty_input(judged: Judged) -> str:
    """Looks at the loss of no example."""
    x, t = random_examples(judged, (0, 4))
    for reduction in ("none", "sum"):
        logits = x.clone().requires_grad_()
        value = judged(logits, t, reduction=reduction).sum()
        if float(value.detach()) != 0:
            raise Fault(f"the loss by {reduction} is {float(value.detach())}")
        if torch.autograd.grad(value, logits)[0].shape != x.shape:
            raise Fault(f"the gradient by {reduction} has another shape")
    mean = float(judged(x, t, reduction="mean"))
    return f"the mean is {mean:g}"


def untouched_arguments(judged: Judged) -> str:
    """Compares logits and targets before and after."""
    for reduction in ("none", "sum", "mean"):
        x, t = random_examples(judged, (3, 4))
        before = x.clone(), t.clone()
        judged.bound(reduction=reduction)(x, t)
        logits = x.clone().requires_grad_()
        value = judged.bound(reduction=reduction)(logits, t).sum()
        torch.autograd.grad(value, logits)
        for what, now, then in (("logits", x, before[0]), ("targets", t, before[1])):
            if not torch.equal(now, then):
                raise Fault(f"{what} are changed by {reduction}")
    return ""


CHECKS = (
    Check(
        "reductions",
        "none has the shape of the logits or of the labels; sum and mean are those of it.",
        reductions,
    ),
    Check(
        "shape of targets",
        "Targets of a shape that does not fit are refused: broadcast ones, transposed ones.",
        target_shapes,
    ),
    Check(
        "shape of weights",
        "A weight of examples or classes that does not fit is refused; one that is broadcast over "
        "the losses may weigh what it stands for, and no more.",
        weight_shapes,
    ),
    Check(
        "range of targets",
        "A target outside [0, 1], or a label that is no class, is refused.",
        target_range,
    ),
    Check(
        "ignore index",
        "Targets of -100, or 255, by the option for it, give no loss and no gradient, whatever "
        "their logits, and the rest is as without them.",
        ignored_targets,
    ),
    Check(
        "no example",
        "No example gives a sum of 0 that can be differentiated (a mean of NaN is torch's own).",
        empty_input,
    ),
    Check("arguments untouched", "Logits and targets are as before.", untouched_arguments),
)
