"""Values and gradients against mpmath, which knows 40 digits, and torch's own cross entropies."""

import itertools

import mpmath
import pytest
import torch
import torch.nn.functional as F
from mpmath import mpf

import fldet.losses as losses

mpmath.mp.dps = 40
K = 4
LOGITS = [
    [0.3, -1.2, 2.5, 0.0],
    [-7.0, 4.0, 0.5, -0.1],
    [30.0, -30.0, 1.0, -2.0],
    [1.5, 1.5, -45.0, 9.0],
    [-0.7, 60.0, -3.0, 3.0],
]
LABELS = [0, 3, 1, 4, 2]  # 4 is background for sigmoids
IGNORED = [0, -100, 1, 4, 2]
SHARES = [
    [0.1, 0.9, 0.5, 0.0],
    [1.0, 0.0, 0.3, 0.2],
    [0.0, 1.0, 0.7, 0.4],
    [0.25, 0.25, 0.25, 0.25],
    [0.6, 0.0, 0.0, 0.99],
]
ALPHAS = [None, 0.25, 0.9, [0.1, 0.5, 0.25, 1.0]]
GAMMAS = [0.0, 0.5, 1.0, 2.0, 3.7, 5.0, [0.5, 2.0, 0.0, 5.0]]
WEIGHTS = {
    "": None,
    "of examples": [1.0, 0.5, 2.0, 0.0, 1.5],
    "of logits": [[0.5 * ((i * K + j) % 5) for j in range(K)] for i in range(5)],
}
CLASS_WEIGHT = [0.5, 1.0, 2.0, 0.1]


def of_class(value, j):
    return value[j] if isinstance(value, list) else value


def sigmoid_loss(x, t, alpha, gamma):
    """Eq. 5, expected over the two labels."""
    p = 1 / (1 + mpmath.exp(-x))
    a, b = (1, 1) if alpha is None else (mpf(alpha), 1 - mpf(alpha))
    return -t * a * (1 - p) ** gamma * mpmath.log(p) - (1 - t) * b * p**gamma * mpmath.log(1 - p)


def expected_sigmoid(targets, alpha, gamma, weight, class_weight, reduction):
    """Returns values and gradients of each logit, as they add up to the loss, and the divisor."""
    values = torch.zeros(5, K, dtype=torch.float64)
    gradients = values.clone()
    counted, positives = 0, mpf(0)
    for i, j in itertools.product(range(5), range(K)):
        target = targets[i][j] if isinstance(targets[i], list) else targets[i]
        if target == -100:
            continue
        t = mpf(target) if isinstance(targets[i], list) else mpf(target == j)
        a, g, x = of_class(alpha, j), mpf(of_class(gamma, j)), mpf(LOGITS[i][j])
        factor = mpf(1) if class_weight is None else mpf(class_weight[j])
        if weight is not None:
            factor *= mpf(of_class(weight[i], j))
        values[i, j] = float(factor * sigmoid_loss(x, t, a, g))
        slope = mpmath.diff(lambda v, t=t, a=a, g=g: sigmoid_loss(v, t, a, g), x)
        gradients[i, j] = float(factor * slope)
        counted += 1
        positives += t
    divisor = {"mean": counted, "positives": float(max(positives, 1))}.get(reduction, 1)
    return values, gradients, divisor


def sigmoid_cases():
    settings = itertools.cycle(itertools.product(("none", "sum", "mean", "positives"), WEIGHTS))
    class_weights = itertools.cycle([None, None, CLASS_WEIGHT])
    ones = [[float(j == y) for j in range(K)] for y in LABELS]
    targets = {"labels": LABELS, "zeros and ones": ones, "shares": SHARES, "ignored": IGNORED}
    for name, alpha, gamma in itertools.product(targets, ALPHAS, GAMMAS):
        reduction, weight = next(settings)
        yield pytest.param(
            targets[name],
            alpha,
            gamma,
            WEIGHTS[weight],
            next(class_weights),
            reduction,
            id=f"{name} alpha {alpha} gamma {gamma} {reduction} weight {weight}",
        )


def tensor(value):
    return None if value is None else torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("targets", "alpha", "gamma", "weight", "class_weight", "reduction"), [*sigmoid_cases()]
)
def test_sigmoid_focal_loss(targets, alpha, gamma, weight, class_weight, reduction):
    values, gradients, divisor = expected_sigmoid(
        targets, alpha, gamma, weight, class_weight, reduction
    )
    x = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    found = losses.sigmoid_focal_loss(
        x,
        torch.tensor(targets, dtype=torch.float64 if isinstance(targets[0], list) else None),
        alpha,
        gamma,
        reduction,
        weight=tensor(weight),
        class_weight=class_weight,
    )
    expected = values if reduction == "none" else values.sum() / divisor
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    found.sum().backward()
    torch.testing.assert_close(x.grad, gradients / divisor, rtol=1e-9, atol=1e-14)


def softmax_loss(x, shares, gamma, weight):
    """The focal loss of a softmax, expected over the classes."""
    exps = [mpmath.exp(v) for v in x]
    total = mpf(0)
    for j, t in enumerate(shares):
        p = exps[j] / mpmath.fsum(exps)
        rest = mpmath.fsum(exps[:j] + exps[j + 1 :]) / mpmath.fsum(exps)
        factor = 1 if weight is None else mpf(weight[j])
        if t:
            total -= t * factor * rest ** mpf(of_class(gamma, j)) * mpmath.log(p)
    return total


def softmax_cases():
    reductions = itertools.cycle(("mean", "none", "sum"))
    targets = {"labels": [0, 3, 1, 2, 2], "ignored": [0, -100, 1, -100, 2], "shares": None}
    gammas = [0.0, 0.5, 1.0, 2.0, 3.7, [0.5, 2.0, 1.0, 5.0]]
    for name, gamma, weight, smoothing in itertools.product(
        targets, gammas, (None, CLASS_WEIGHT), (0.0, 0.1, 1.0)
    ):
        reduction = next(reductions)
        yield pytest.param(
            targets[name],
            gamma,
            weight,
            smoothing,
            reduction,
            id=f"{name} gamma {gamma} weight {weight is not None} {smoothing} {reduction}",
        )


@pytest.mark.parametrize(
    ("labels", "gamma", "weight", "smoothing", "reduction"), [*softmax_cases()]
)
def test_softmax_focal_loss(labels, gamma, weight, smoothing, reduction):
    shares = [[v / sum(row) for v in row] for row in SHARES]
    target = torch.tensor(shares, dtype=torch.float64)
    if labels is not None:
        shares = [[float(j == y) for j in range(K)] for y in labels]
        target = torch.tensor(labels)
    values = torch.zeros(5, dtype=torch.float64)
    gradients, divisor = torch.zeros(5, K, dtype=torch.float64), 0.0
    for i in range(5):
        if labels is not None and labels[i] == -100:
            continue
        t = [(1 - mpf(smoothing)) * mpf(s) + mpf(smoothing) / K for s in shares[i]]
        row = [mpf(v) for v in LOGITS[i]]
        values[i] = float(softmax_loss(row, t, gamma, weight))
        for j in range(K):
            moved = lambda v, i=i, j=j, t=t: softmax_loss(  # noqa: E731
                [mpf(v) if c == j else mpf(w) for c, w in enumerate(LOGITS[i])], t, gamma, weight
            )
            gradients[i, j] = float(mpmath.diff(moved, row[j]))
        divisor += 1 if weight is None or labels is None else weight[labels[i]]
    divisor = divisor if reduction == "mean" else 1
    x = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    found = losses.softmax_focal_loss(
        x,
        target,
        gamma=gamma,
        weight=tensor(weight),
        label_smoothing=smoothing,
        reduction=reduction,
    )
    expected = values if reduction == "none" else values.sum() / divisor
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    found.sum().backward()
    torch.testing.assert_close(x.grad, gradients / divisor, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("kind", ["shares", "labels", "booleans", "weighted"])
def test_gamma_zero_without_alpha_is_torchs_binary_cross_entropy_to_the_bit(dtype, reduction, kind):
    x = torch.randn(50, 7, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 5
    x.requires_grad_()
    labels = torch.arange(50) % 8
    dense = F.one_hot(labels, 8)[:, :7].to(dtype)
    targets = {"shares": dense * 0.7, "labels": labels, "booleans": dense > 0}.get(kind, dense)
    weight = torch.rand(50, 7, dtype=dtype) if kind == "weighted" else None
    found = losses.sigmoid_focal_loss(x, targets, None, 0.0, reduction, weight=weight)
    found_grad = torch.autograd.grad(found.sum(), x)[0]
    given = dense * 0.7 if kind == "shares" else dense
    expected = F.binary_cross_entropy_with_logits(x, given, weight, reduction=reduction)
    assert torch.equal(found, expected)
    assert torch.equal(found_grad, torch.autograd.grad(expected.sum(), x)[0])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(7,), (50, 7), (3, 7, 4), (2, 7, 5, 3)])
@pytest.mark.parametrize("kind", ["labels", "ignored", "smoothed", "weighted", "shares"])
def test_gamma_zero_is_torchs_cross_entropy_to_the_bit(reduction, shape, kind):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 5).requires_grad_()
    dim = min(1, len(shape) - 1)
    labels = torch.randint(0, 7, x.select(dim, 0).shape, generator=generator)
    settings = {}
    if kind == "ignored":
        labels = torch.where(torch.rand(labels.shape, generator=generator) < 0.3, 255, labels)
        settings["ignore_index"] = 255
    if kind == "smoothed":
        settings["label_smoothing"] = 0.2
    if kind in ("weighted", "shares"):
        settings["weight"] = torch.rand(7, generator=generator)
    target = x.detach().softmax(dim) if kind == "shares" else labels
    found = losses.softmax_focal_loss(x, target, gamma=0.0, reduction=reduction, **settings)
    expected = F.cross_entropy(x, target, reduction=reduction, **settings)
    assert torch.equal(found, expected) or (found.isnan() == expected.isnan()).all()
    assert torch.equal(
        torch.autograd.grad(found.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0]
    ) or bool(expected.isnan())


def torchvisions(x, t, alpha, gamma):
    """What torchvision computes, as a formula."""
    p = torch.sigmoid(x)
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    loss = ce * (1 - p_t) ** gamma
    return loss if alpha < 0 else (alpha * t + (1 - alpha) * (1 - t)) * loss


@pytest.mark.parametrize("alpha", [-1, 0.25, 0.0, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1, 2.0, 5.0])
def test_called_as_torchvisions_it_gives_the_same_for_labels(alpha, gamma):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 6, 5, dtype=torch.float64, generator=generator) * 4
    t = (torch.rand(4, 3, 6, 5, generator=generator) < 0.3).double()
    x.requires_grad_()
    for reduction, reduced in (("none", lambda v: v), ("mean", torch.mean), ("sum", torch.sum)):
        expected = reduced(torchvisions(x, t, alpha, gamma))
        found = losses.sigmoid_focal_loss(x, t, alpha, gamma, reduction)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        slopes = [torch.autograd.grad(v.sum(), x)[0] for v in (found, expected)]
        finite = slopes[1].isfinite()
        torch.testing.assert_close(slopes[0][finite], slopes[1][finite], rtol=1e-11, atol=1e-14)


def test_a_share_is_lost_as_expected_over_both_labels_and_not_as_torchvision_mixes_them():
    x, t = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    expected = 0.7 * losses.sigmoid_focal_loss(x, one) + 0.3 * losses.sigmoid_focal_loss(x, zero)
    torch.testing.assert_close(losses.sigmoid_focal_loss(x, t), expected)
    assert not torch.isclose(torchvisions(x, t, 0.25, 2.0), expected)


@pytest.mark.parametrize(("t", "least"), [(0.5, 0.5), (0.7, 0.58), (0.9, 0.69)])
def test_where_the_loss_of_a_share_is_least_as_docs_losses_says(t, least):
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    share = torch.full_like(x, t)
    focal = losses.sigmoid_focal_loss(x, share, alpha=None)
    assert torch.sigmoid(x[focal.argmin()]).item() == pytest.approx(least, abs=0.01)
    quality = losses.quality_focal_loss(x, share)
    assert torch.sigmoid(x[quality.argmin()]).item() == pytest.approx(t, abs=0.01)
