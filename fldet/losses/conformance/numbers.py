"""Checks of values and gradients against float64."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses.conformance.contract import Check, Fault, Judged, NotApplicable
from fldet.losses.conformance.reference import (
    GAMMAS,
    both_labels,
    random_examples,
    reference,
    reference_gradient,
)


def values(judged: Judged) -> str:
    """Compares losses in float32."""
    return _worst_value(judged, torch.float32, 1e-5)


def values_in_float64(judged: Judged) -> str:
    """Compares losses in float64."""
    x, t = random_examples(judged, (3, 4), torch.float64)
    dtype = judged(x, t).dtype
    if dtype != torch.float64:
        raise Fault(f"the result is {_name(dtype)}")
    return _worst_value(judged, torch.float64, 1e-12)


def _worst_value(judged: Judged, dtype: torch.dtype, limit: float) -> str:
    worst = 0.0
    grid = both_labels(judged, torch.linspace(-100, 100, 401, dtype=torch.float64).to(dtype))
    for x, t in (grid, random_examples(judged, (50, 5), dtype)):
        for gamma in GAMMAS:
            for alpha in (None,) if judged.is_softmax else (None, 0.25):
                loss = judged.of_examples(x, t, gamma=gamma, alpha=alpha).double()
                right = reference(judged, x, t, gamma=gamma, alpha=alpha)
                away = (loss - right).abs() / (1 + right)
                if not bool((away <= limit).all()):
                    at = int(away.nan_to_num(torch.inf).argmax())
                    raise Fault(
                        f"{float(loss.flatten()[at]):.6g} is not {float(right.flatten()[at]):.6g} "
                        f"at {_where(judged, x, t, at)}, gamma {gamma:g}, alpha {alpha}"
                    )
                worst = max(worst, float(away.max()))
    return f"to {worst:.0e}"


def _where(judged: Judged, x: Tensor, t: Tensor, index: int) -> str:
    """Returns the logit (that of class 1 where there are two) and the label of an entry."""
    logits = x.flatten() if not judged.is_softmax else x[:, 1] if x.shape[1] == 2 else x[:, 0]
    return f"x = {float(logits[index]):.4g}, label {float(t.flatten()[index]):g}"


def finite_below_gamma_1(judged: Judged) -> str:
    """Counts gradients that are not finite at gamma 0.5."""
    x, t = both_labels(judged, torch.linspace(-100, 100, 2001))
    bad = _examples_not_finite(judged, x, t, 0.5)
    count = 2 * 2001
    if bad:
        raise Fault(f"{bad:,} of {count:,} are not finite")
    x, t = both_labels(judged, torch.tensor([-1e4, -1e3, 1e3, 1e4]))
    if _examples_not_finite(judged, x, t, 0.5):
        raise Fault("not finite at logits of -1e4 to 1e4")
    return f"0 of {count:,} are not finite"


def finite_at_large_logits(judged: Judged) -> str:
    """Looks at gradients and losses of large logits for gamma >= 1."""
    x, t = both_labels(judged, torch.tensor([-1e4, -1e3, -100.0, 100.0, 1e3, 1e4]))
    for gamma in (1.0, 2.0, 5.0):
        bad = _examples_not_finite(judged, x, t, gamma)
        if bad:
            raise Fault(f"{bad} of {2 * 6} are not finite at gamma {gamma:g}")
        if not bool(judged(x, t, gamma=gamma).isfinite().all()):
            raise Fault(f"the loss is not finite at gamma {gamma:g}")
    return ""


def _examples_not_finite(judged: Judged, x: Tensor, t: Tensor, gamma: float) -> int:
    """Returns the number of logits, or of examples of a softmax, with such a gradient."""
    worst = 0
    for grad in judged.gradients(x, t, gamma=gamma).values():
        finite = grad.isfinite()
        worst = max(worst, int((~(finite.all(1) if judged.is_softmax else finite)).sum()))
    return worst


def precise_gradients(judged: Judged) -> str:
    """Compares gradients of confident examples, digit by digit."""
    x, t = both_labels(judged, torch.linspace(-40, 40, 801))
    worst, where, largest = 0.0, "", 0.0
    for gamma in (1.0, 2.0, 5.0):
        right = reference_gradient(judged, x, t, gamma=gamma)
        for grad in judged.gradients(x, t, gamma=gamma).values():
            away = ((grad.double() - right).abs() / right.abs()).nan_to_num(torch.inf)
            away[right.abs() < 1e-30] = 0
            largest = max(largest, float(torch.where(away > 1e-3, right.abs(), 0).max()))
            if float(away.max()) > worst:
                at = int(away.argmax())
                worst, example = float(away.max()), at // x.shape[1] if judged.is_softmax else at
                where = (
                    f"{float(grad.flatten()[at]):.2g}, not {float(right.flatten()[at]):.2g}, at "
                    f"{_where(judged, x, t, example)}, gamma {gamma:g}"
                )
    if largest:
        raise Fault(f"gradients of {largest:.1e} and less lose digits; the worst is {where}")
    return f"to {worst:.0e}"


def half_types(judged: Judged) -> str:
    """Compares losses and gradients of float16 and bfloat16 logits with those of the same logits.

    A loss that is added up in half precision can be no better than its steps of rounding.
    """
    names = []
    for dtype in (torch.float16, torch.bfloat16):
        step = torch.finfo(dtype).eps
        x, t = both_labels(judged, torch.linspace(-15, 15, 301).to(dtype))
        loss = judged.of_examples(x, t)
        right = reference(judged, x, t, gamma=2.0)
        away = float(((loss.double() - right).abs() / (1 + right)).max())
        grads = judged.gradients(x, t).values()
        right_grad = reference_gradient(judged, x, t, gamma=2.0)
        slope = max(float((grad.double() - right_grad).abs().max()) for grad in grads)
        for what, error in (("loss", away), ("gradient", slope)):
            if not error <= 4 * step:
                raise Fault(f"{_name(dtype)}: the {what} is off by {error:.2g}")
        many, labels = both_labels(judged, torch.full((40_000,), 15.0).to(dtype))
        mean = float(judged(many, labels, reduction="mean"))
        if not abs(mean) < torch.inf:
            raise Fault(f"{_name(dtype)}: the mean of 80,000 losses is {mean}")
        names.append(f"{_name(dtype)} gives {_name(loss.dtype)}")
    return ", ".join(names)


def soft_targets(judged: Judged) -> str:
    """Compares the loss of targets between 0 and 1, or of probabilities of classes."""
    if judged.is_softmax:
        x = torch.tensor([[1.0, 0.0, -2.0]])
        t = torch.tensor([[0.2, 0.5, 0.3]])
    else:
        x, t = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.3, 0.1, 0.8]])
    for alpha in (None,) if judged.is_softmax else (None, 0.25):
        try:
            loss = judged.of_examples(x, t, alpha=alpha)
        except Exception as error:
            raise NotApplicable(f"takes labels only ({type(error).__name__})") from error
        right = reference(judged, x, t, gamma=2.0, alpha=alpha)
        if not torch.allclose(loss.double(), right, rtol=1e-4):
            of = "probabilities 0.2, 0.5, 0.3" if judged.is_softmax else "x = 1, t = 0.3"
            raise Fault(
                f"{of}: {float(loss.flatten()[0]):.4f} where the expectation is "
                f"{float(right.flatten()[0]):.4f} (alpha {alpha})"
            )
    return ""


def gamma_0(judged: Judged) -> str:
    """Compares with torch's cross entropy."""
    x, t = random_examples(judged, (50, 5))
    logits = x.clone().requires_grad_()
    if judged.is_softmax:
        torchs = F.cross_entropy(logits, t, reduction="none")
    else:
        torchs = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    slope = torch.autograd.grad(torchs.sum(), logits)[0]
    loss, torchs = judged.of_examples(x, t, gamma=0.0), torchs.detach()
    away = float(((loss - torchs).abs() / (1 + torchs)).max())
    for grad in judged.gradients(x, t, gamma=0.0).values():
        away = max(away, float((grad - slope).abs().max()))
    if not away <= 1e-6:
        raise Fault(f"off by {away:.2g}")
    return "the loss bit for bit" if torch.equal(loss, torchs) else f"to {away:.0e}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


CHECKS = (
    Check(
        "values",
        "The loss of float32 logits from -100 to 100 is that of the formula in float64, to 1e-5 "
        "of 1 + loss, for gamma 0, 0.5, 1, 2, 5, with alpha 0.25 and without.",
        values,
    ),
    Check(
        "float64",
        "Float64 logits give a float64 loss, right to 1e-12 of 1 + loss.",
        values_in_float64,
    ),
    Check(
        "gamma 0",
        "Without alpha, gamma 0 is torch's cross entropy and its gradient, to 1e-6.",
        gamma_0,
    ),
    Check(
        "finite gradient, gamma 0.5",
        "Gradients are finite at gamma 0.5, for 2,001 logits from -100 to 100 with either label, "
        "and at logits of 1e3 and 1e4 of both signs.",
        finite_below_gamma_1,
    ),
    Check(
        "finite gradient, large logits",
        "Loss and gradient are finite at gamma 1, 2, 5 for logits of 100, 1e3, 1e4 of both signs.",
        finite_at_large_logits,
    ),
    Check(
        "digits of the gradient",
        "Float32 gradients, however small to 1e-30, agree with float64's in three digits, for "
        "logits from -40 to 40 at gamma 1, 2, 5.",
        precise_gradients,
    ),
    Check(
        "half types",
        "For float16 and bfloat16 logits, loss (of 1 + loss) and gradient are within four steps of "
        "rounding of the type, and the mean of 80,000 losses is finite.",
        half_types,
    ),
    Check(
        "soft targets",
        "A target t in [0, 1] gives the expectation over both labels, t alpha (1 - p)^gamma "
        "(-log p) + (1 - t) (1 - alpha) p^gamma (-log(1 - p)); probabilities of the classes of a "
        "softmax give the sum of t_c (1 - p_c)^gamma (-log p_c). Not asked of what refuses them.",
        soft_targets,
    ),
)
