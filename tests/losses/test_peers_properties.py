"""What the tests of other focal losses check beside values, as tables, on ours.

Each row is named after the peer whose tests check it: fvcore, torchvision, MONAI, kornia, mmcv and
mmdet. Where ours departs from a peer on purpose, the row is in ``DEPARTURES``, with the reason.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from fldet.losses import (
    FocalLoss,
    SoftmaxFocalLoss,
    quality_focal_loss,
    sigmoid_focal_loss,
    sigmoid_focal_loss_star,
    softmax_focal_loss,
)
from fldet.models.losses.sigmoid_loss import FocalLoss as HeadsFocalLoss


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def drawn_labels(high, *shape, seed=1):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


# --- what is right, and far from the decision, costs nothing ---

SQUARE = tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
CERTAIN = {
    "MONAI, two classes": (SQUARE, 2, 50.0),
    "MONAI, one class is empty": (torch.zeros(4, 4, dtype=torch.long), 2, 500.0),
    "MONAI, six classes": (tensor([[0, 0, 0], [0, 1, 2], [0, 3, 4]]), 6, 500.0),
    "MONAI, a volume": (SQUARE.expand(3, 4, 4), 2, 500.0),
}


@pytest.mark.parametrize("targets", ["labels", "one-hot"])
@pytest.mark.parametrize("row", CERTAIN.values(), ids=CERTAIN)
def test_certainty_costs_nothing(row, targets):
    labels, num_classes, logit = row
    labels = labels[None]
    one_hot = F.one_hot(labels, num_classes).movedim(-1, 1).float()
    x = (logit * (2 * one_hot - 1)).requires_grad_()
    t = labels if targets == "labels" else one_hot
    losses = [sigmoid_focal_loss(x, t, a, 2.0, "mean", class_dim=1) for a in (None, 0.5)]
    losses.append(softmax_focal_loss(x, t, gamma=2.0))
    for loss in losses:
        (grad,) = torch.autograd.grad(loss, x)
        assert loss.item() == pytest.approx(0, abs=1e-3)
        assert torch.isfinite(grad).all()


def test_certain_logits_of_both_signs():
    """kornia: 100 and -100, both right."""
    loss = sigmoid_focal_loss(tensor([[100.0, -100.0]]), tensor([[1.0, 0.0]]), 0.25, 2.0)
    torch.testing.assert_close(loss, torch.zeros(1, 2))


# --- the logits of what is ignored do not matter ---

LARGEST = torch.finfo(torch.float32).max


def loss_and_gradient(kind, x, labels, reduction, weight=None):
    x = x.clone().requires_grad_()
    if kind == "sigmoid":
        loss = sigmoid_focal_loss(x, labels, 0.25, 2.0, reduction, class_weight=weight, class_dim=1)
    else:
        loss = softmax_focal_loss(x, labels, gamma=2.0, weight=weight, reduction=reduction)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weight", [None, [0.5, 1.5]], ids=["", "weighted"])
@pytest.mark.parametrize("spatial", [False, True], ids=["rows", "map"])
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_ignored_logits_however_large(kind, spatial, weight, reduction):
    """kornia: loss and gradient are those of ignored logits of 0."""
    labels, both = tensor([-100, 0]), []
    for own in (LARGEST, 0.0):
        x = tensor([[own, -own], [0.3, -0.2]])
        x, y = (x.T.reshape(1, 2, 1, 2), labels.view(1, 1, 2)) if spatial else (x, labels)
        both.append(loss_and_gradient(kind, x, y, reduction, weight))
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_ignored_logits_that_are_not_finite(kind, value):
    """kornia: loss and gradient are those of ignored logits of 0."""
    both = [
        loss_and_gradient(kind, tensor([[own, 0.0], [0.3, -0.2]]), tensor([-100, 1]), "sum")
        for own in (value, 0.0)
    ]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("ignore_index", [-100, 255])
@pytest.mark.parametrize("loss", [sigmoid_focal_loss, softmax_focal_loss])
def test_all_ignored(loss, ignore_index):
    """kornia: the loss and its gradient are 0, also of the largest logits."""
    x = tensor([[LARGEST, -LARGEST]], requires_grad=True)
    value = loss(x, tensor([ignore_index]), gamma=2.0, reduction="sum", ignore_index=ignore_index)
    assert value.item() == 0
    assert torch.equal(torch.autograd.grad(value, x)[0], torch.zeros_like(x))


@pytest.mark.parametrize("ignore_index", [-100, 255])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_ignored_is_as_a_class_of_no_probability(ignore_index, gamma):
    """kornia: what is ignored counts as the label of another class, whose loss is left out."""
    logits, labels = drawn(2, 3, 3, 2), drawn_labels(3, 2, 3, 2)
    ignored = drawn(2, 3, 2, seed=2) > 0.6
    expected = softmax_focal_loss(logits, labels, gamma=gamma, reduction="none")
    actual = softmax_focal_loss(
        logits,
        labels.masked_fill(ignored, ignore_index),
        gamma=gamma,
        reduction="none",
        ignore_index=ignore_index,
    )
    torch.testing.assert_close(actual, expected.masked_fill(ignored, 0))
    soft = drawn(2, 3, 3, 2, seed=3)
    left_out = ignored[:, None].expand_as(soft)
    expected = sigmoid_focal_loss(logits, soft, 0.8, gamma).masked_fill(left_out, 0)
    marked = soft.masked_fill(left_out, ignore_index)
    actual = sigmoid_focal_loss(logits, marked, 0.8, gamma, ignore_index=ignore_index)
    torch.testing.assert_close(actual, expected)


# --- shapes, modules, derivatives, compilation ---


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("alpha", [None, 0.2, 0.5])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2), (2, 3, 3, 2)], ids=lambda s: f"kornia, {s}")
def test_shape(shape, gamma, alpha, reduction):
    logits, soft, labels = drawn(*shape), drawn(*shape), drawn_labels(3, shape[0], *shape[2:])
    sigmoid = sigmoid_focal_loss(logits, soft, alpha, gamma, reduction)
    softmax = softmax_focal_loss(
        logits, labels, gamma=gamma, reduction=reduction, weight=[0.2, 0.5, 0.8]
    )
    assert sigmoid.shape == (shape if reduction == "none" else ())
    assert softmax.shape == (labels.shape if reduction == "none" else ())


SOFT = drawn(2, 3, 2, seed=4).double()
LABELS = tensor([[0, -100], [2, 1]])
DERIVED = {
    "kornia, sigmoid": lambda x: sigmoid_focal_loss(x, SOFT, 0.25, 2.0),
    "kornia, sigmoid, ignored": lambda x: sigmoid_focal_loss(
        x, SOFT.masked_fill(SOFT > 0.8, -100), 0.25, 2.0
    ),
    "kornia, softmax, ignored": lambda x: softmax_focal_loss(
        x, LABELS, gamma=2.0, reduction="none"
    ),
}


@pytest.mark.parametrize("loss", DERIVED.values(), ids=DERIVED)
def test_gradient(loss):
    assert torch.autograd.gradcheck(loss, (drawn(2, 3, 2).double().requires_grad_(),))


@pytest.mark.parametrize("loss", DERIVED.values(), ids=DERIVED)
def test_compiled(loss):
    x = drawn(2, 3, 2).double()
    torch.testing.assert_close(torch.compile(loss, backend="eager", fullgraph=True)(x), loss(x))


def test_module_is_the_function():
    """kornia: of a sigmoid, and of a softmax."""
    logits, soft, labels = drawn(2, 3, 2), drawn(2, 3, 2), drawn_labels(3, 2, 2)
    expected = sigmoid_focal_loss(logits, soft, 0.25, 2.0, "mean")
    assert torch.equal(FocalLoss(0.25, 2.0)(logits, soft), expected)
    assert torch.equal(
        SoftmaxFocalLoss(gamma=2.0)(logits, labels), softmax_focal_loss(logits, labels, gamma=2.0)
    )


# --- what is refused ---

SIX = torch.ones(1, 2, 3)
REFUSED = {
    "MONAI, reduction": lambda: sigmoid_focal_loss(SIX, SIX, reduction="unknown"),
    "torchvision, reduction": lambda: sigmoid_focal_loss(SIX, SIX, 0.25, 2, "xyz"),
    "MONAI, shape": lambda: sigmoid_focal_loss(SIX, torch.ones(1, 3), reduction="mean"),
    "MONAI, class weights": lambda: sigmoid_focal_loss(
        torch.ones(1, 4, 3, 3), torch.ones(1, 4, 3, 3), class_weight=[1.0, 1, 2], class_dim=1
    ),
    "MONAI, alphas": lambda: sigmoid_focal_loss(
        torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4), [0.1, 0.5], class_dim=1
    ),
    "kornia, targets": lambda: softmax_focal_loss(torch.ones(2, 3, 2), torch.ones(2, 3).long()),
    "mmdet, reduction": lambda: HeadsFocalLoss()(
        torch.ones(10, 5), torch.zeros(10).long(), reduction_override=True
    ),
    "mmdet, avg_factor of a sum": lambda: HeadsFocalLoss()(
        torch.ones(10, 5), torch.zeros(10).long(), avg_factor=10, reduction_override="sum"
    ),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_refused(call):
    with pytest.raises(ValueError, match=r"."):
        call()


# --- MMDetection ---

OF_HEADS = [
    pytest.param((10, 5), drawn_labels(5, 10), id="mmdet, labels"),
    pytest.param((10, 5), F.one_hot(drawn_labels(5, 10), 5), id="mmdet, one-hot rows"),
    pytest.param(
        (3, 5, 40, 40),
        F.one_hot(drawn_labels(5, 3, 40, 40), 5).movedim(-1, 1),
        id="mmdet, one-hot map",
    ),
]


@pytest.mark.parametrize(("shape", "targets"), OF_HEADS)
def test_reductions_of_the_heads_loss(shape, targets):
    logits, loss = drawn(*shape), HeadsFocalLoss()
    each = sigmoid_focal_loss(logits, targets)
    torch.testing.assert_close(loss(logits, targets), each.mean())
    torch.testing.assert_close(loss(logits, targets, reduction_override="mean"), each.mean())
    torch.testing.assert_close(loss(logits, targets, avg_factor=10), each.sum() / 10)
    torch.testing.assert_close(
        loss(logits, targets, avg_factor=10, reduction_override="mean"), each.sum() / 10
    )
    torch.testing.assert_close(
        loss(logits, targets, avg_factor=10, reduction_override="none").sum(), each.sum()
    )


def test_quality_of_labels_is_a_dense_target():
    """mmdet: an object of a label and a quality loses what its row of qualities loses."""
    logits, labels, quality = drawn(4, 5), tensor([0, 1, 2, 0]), drawn(4, seed=6)
    dense = F.one_hot(labels, 5) * quality[:, None]
    loss = quality_focal_loss(logits, dense, beta=2.0)
    for row, label in enumerate(labels.tolist()):
        for column, x in enumerate(logits[row].tolist()):
            p, q = 1 / (1 + math.exp(-x)), quality[row].item() if column == label else 0.0
            expected = -(abs(q - p) ** 2) * (q * math.log(p) + (1 - q) * math.log(1 - p))
            assert loss[row, column].item() == pytest.approx(expected, rel=1e-5)


# --- where ours departs on purpose ---

P = 1 / (1 + math.exp(-1))  # of the logit 1
Q = 1 - P
POSITIVE, NEGATIVE = -(Q**2) * math.log(P), -(P**2) * math.log(Q)
ONE = tensor([[1.0]])
# two rows of logits 0 and 0: each label loses log(2) / 4 at gamma 2
EVEN, HALF = torch.zeros(2, 2), math.log(2) / 4
DEPARTURES = {
    "torchvision, soft targets": (
        "a target in between is a probability, the loss expected over both labels, as kornia's; "
        "torchvision mixes p_t and alpha_t, which is no expectation",
        lambda: sigmoid_focal_loss(ONE, tensor([[0.3]]), 0.25, 2.0),
        [[0.3 * 0.25 * POSITIVE + 0.7 * 0.75 * NEGATIVE]],
    ),
    "torchvision, half": (
        "half types are computed and returned in float32; torchvision returns the half type",
        lambda: sigmoid_focal_loss(ONE.half(), ONE.half(), None, 2.0),
        [[POSITIVE]],
    ),
    "kornia, not reduced": (
        "a loss for each label, as cross entropy's; kornia's has the dimension of the classes",
        lambda: softmax_focal_loss(EVEN, tensor([0, 1]), gamma=2.0, reduction="none"),
        [HALF, HALF],
    ),
    "kornia, mean": (
        "over the labels, as cross entropy's; kornia, MONAI divide by the classes too",
        lambda: softmax_focal_loss(EVEN, tensor([0, 1]), gamma=2.0),
        HALF,
    ),
    "kornia, mean with ignored": (
        "over what counts, as cross entropy's; kornia divides by the ignored too",
        lambda: softmax_focal_loss(EVEN, tensor([0, -100]), gamma=2.0),
        HALF,
    ),
    "kornia, alpha of a softmax": (
        "is a weight for each class, and divided by; kornia, MONAI have 1 - alpha for class 0",
        lambda: softmax_focal_loss(EVEN, tensor([0, 1]), gamma=2.0, weight=[0.8, 0.2]),
        HALF,
    ),
    "MONAI, sum": (
        "over all logits; MONAI averages over the places of a map",
        lambda: sigmoid_focal_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), None, 2, "sum"),
        4 * HALF,
    ),
    "MONAI, alpha for each class": (
        "weighs the negatives of the class by 1 - alpha; MONAI by 1",
        lambda: sigmoid_focal_loss(EVEN[:1], tensor([[1.0, 0]]), [0.1, 0.9], 2.0),
        [[0.1 * HALF, 0.1 * HALF]],
    ),
    "mmcv, mean": (
        "over the logits, as torchvision's; mmcv divides by the rows",
        lambda: sigmoid_focal_loss(EVEN, tensor([0, 1]), None, 2.0, "mean"),
        HALF,
    ),
    "fvcore, shift of FL*": (
        "1 unless it is given, as the paper's example; fvcore has no shift",
        lambda: sigmoid_focal_loss_star(ONE, ONE, alpha=None, gamma=2.0),
        [[math.log1p(math.exp(-3)) / 2]],
    ),
    "MONAI, negative class weights": (
        "are the caller's to give; MONAI refuses them",
        lambda: sigmoid_focal_loss(EVEN[:1], tensor([[1.0, 0]]), None, 2, class_weight=[-1, 1]),
        [[-HALF, HALF]],
    ),
}


@pytest.mark.parametrize("row", DEPARTURES.values(), ids=DEPARTURES)
def test_departure(row):
    _, call, expected = row
    torch.testing.assert_close(call(), tensor(expected))


NOT_BROADCAST = {
    "kornia, class weights as (K, 1)": lambda: sigmoid_focal_loss(
        drawn(2, 3, 2), drawn(2, 3, 2), weight=drawn(3, 1)
    ),
    "MONAI, labels as (N, 1, H, W)": lambda: softmax_focal_loss(
        drawn(1, 3, 2, 2), drawn_labels(3, 1, 1, 2, 2), gamma=2.0
    ),
    "MONAI, alpha above 1": lambda: sigmoid_focal_loss(
        drawn(2, 3), drawn(2, 3), alpha=[0.1, 0.5, 2.0]
    ),
}


@pytest.mark.parametrize("call", NOT_BROADCAST.values(), ids=NOT_BROADCAST)
def test_refused_by_ours_alone(call):
    """Shapes are not broadcast, and alpha is a share."""
    with pytest.raises(ValueError, match=r"weight for each|labels of shape|alpha must be"):
        call()


@pytest.mark.filterwarnings("ignore")  # torch's, of a trace
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_traced_in_the_place_of_scripted(reduction):
    """torchvision and MONAI can be scripted; ours takes functions as gamma, and is traced."""

    def loss(x, t):
        return sigmoid_focal_loss(x, t, 0.58, 2.0, reduction)

    x, t = drawn(45, 2), drawn_labels(2, 45, 2).float()
    torch.testing.assert_close(torch.jit.trace(loss, (x, t))(x, t), loss(x, t))
