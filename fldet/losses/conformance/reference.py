"""The formula in float64, and the examples that a loss is asked about.

Nothing here is shared with the losses of fldet, so that they are judged like the rest.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fldet.losses.conformance.contract import Judged

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def focal(z: Tensor, gamma: float) -> Tensor:
    """Returns ``-(1 - p)^gamma log(p)`` with ``p = sigmoid(z)``."""
    return torch.exp(gamma * F.logsigmoid(-z)) * -F.logsigmoid(z)


def reference(
    judged: Judged, x: Tensor, t: Tensor, *, gamma: float, alpha: float | None = None
) -> Tensor:
    """Returns the loss of each logit, or of each example of a softmax, in float64.

    A sigmoid's target is the probability of label 1 and the loss expected over both labels; with
    no alpha both weigh 1. A softmax's ``p_c`` is ``sigmoid(x_c - logsumexp of the others)``.
    """
    x = x.double()
    if not judged.is_softmax:
        positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        t = t.double()
        return t * positive * focal(x, gamma) + (1 - t) * negative * focal(-x, gamma)
    classes = range(x.shape[1])
    others = [x[:, [c for c in classes if c != k]].logsumexp(1) for k in classes]
    losses = focal(x - torch.stack(others, 1), gamma)
    if t.is_floating_point():
        return (losses * t.double()).sum(1)
    return losses.gather(1, t.unsqueeze(1)).squeeze(1)


def reference_gradient(judged: Judged, x: Tensor, t: Tensor, *, gamma: float) -> Tensor:
    """Returns the gradient of the sum, in float64."""
    logits = x.detach().double().requires_grad_()
    loss = reference(judged, logits, t, gamma=gamma).sum()
    return torch.autograd.grad(loss, logits)[0]


def both_labels(judged: Judged, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each logit with label 0 and with label 1.

    For a softmax over two classes: the logit of class 1 beside a 0 for class 0.
    """
    if not judged.is_softmax:
        x = logits.unsqueeze(1).repeat(1, 2)
        return x, torch.tensor([0.0, 1.0], dtype=x.dtype).repeat(len(x), 1)
    x = torch.stack([torch.zeros_like(logits), logits], 1).repeat(2, 1)
    return x, torch.arange(2).repeat_interleave(len(logits))


def random_examples(
    judged: Judged, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Returns logits of a shape, classes in dimension 1, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if judged.is_softmax:
        return x, torch.randint(shape[1], (*shape[:1], *shape[2:]), generator=generator)
    return x, (torch.rand(shape, generator=generator) < 0.3).to(dtype)
