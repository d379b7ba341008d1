"""The values that the tests of other focal losses check, as tables, on ours.

Each row is named after the peer whose tests check it: fvcore, torchvision, MONAI, kornia and mmcv.
Numbers are theirs where they state them, and otherwise computed here in float64 from the equation.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from fldet.losses import sigmoid_focal_loss, sigmoid_focal_loss_star, softmax_focal_loss

# --- values that the peers state ---

# three classes with the same logits on a map of 2 x 2, and its labels
ALIKE = tensor([[1.0, 1.0], [0.5, 0.0]]).expand(1, 3, 2, 2)
ON_MAP = tensor([[[0, 1], [2, 0]]])
ONE_HOT = F.one_hot(ON_MAP).movedim(-1, 1).float()
WEIGHTED = [
    [[0.01133, 0.35093], [0.18871, 0.08664]],
    [[0.07019, 0.00227], [0.03774, 0.01733]],
    [[0.14037, 0.14037], [0.01352, 0.03466]],
]
UNWEIGHTED = [
    [[0.02266, 0.70187], [0.37741, 0.17329]],
    [[0.70187, 0.02266], [0.37741, 0.17329]],
    [[0.70187, 0.70187], [0.06757, 0.17329]],
]
# the first class everywhere, as logits of 1 and 0; the targets have the second one in the middle
FIRST = torch.zeros(1, 2, 5, 5).index_fill_(1, tensor([0]), 1.0)
BUT_MIDDLE = FIRST.clone()
BUT_MIDDLE[0, :, 2, 2] = tensor([0.0, 1.0])

MEAN = {"alpha": None, "reduction": "mean"}
SIGMOID_VALUES = {
    "MONAI, labels": (ALIKE, ON_MAP, MEAN, 0.34959),
    "MONAI, one-hot": (ALIKE, ONE_HOT, MEAN, 0.34959),
    "MONAI, without the background": (ALIKE[:, 1:], ONE_HOT[:, 1:], MEAN, 0.36498),
    "MONAI, alpha": (ALIKE, ON_MAP, {"alpha": 0.8, "reduction": "mean"}, 0.08423),
    "MONAI, not reduced": (ALIKE, ON_MAP, {"alpha": None}, [UNWEIGHTED]),
    "MONAI, class weights": (
        ALIKE,
        ON_MAP,
        {"alpha": None, "class_weight": [0.5, 0.1, 0.2], "class_dim": 1},
        [WEIGHTED],
    ),
    "MONAI, both": (FIRST, BUT_MIDDLE, MEAN, 0.1116),
    "MONAI, foreground": (FIRST[:, 1:], BUT_MIDDLE[:, 1:], MEAN, 0.1733),
}


@pytest.mark.parametrize("row", SIGMOID_VALUES.values(), ids=SIGMOID_VALUES)
def test_sigmoid_value(row):
    logits, targets, settings, expected = row
    actual = sigmoid_focal_loss(logits, targets, **settings)
    torch.testing.assert_close(actual, tensor(expected), rtol=1e-4, atol=1e-4)


SOFTMAX_VALUES = {  # the peers divide by the number of logits
    "MONAI": (ALIKE, ON_MAP, None, 0.16276),
    "MONAI, alpha": (ALIKE, ON_MAP, [0.2, 0.8, 0.8], 0.08138),
}


@pytest.mark.parametrize("row", SOFTMAX_VALUES.values(), ids=SOFTMAX_VALUES)
def test_softmax_value(row):
    logits, labels, weight, expected = row
    loss = softmax_focal_loss(logits, labels, gamma=2.0, weight=weight, reduction="sum")
    assert loss.item() / logits.numel() == pytest.approx(expected, rel=1e-4, abs=1e-4)


# mmcv states the mean over the rows, at alpha 0.25 and gamma 2, and its gradient.
ROWS = [
    (tensor([[1.0, 0], [0, 1]]), tensor([0, 1])),
    (tensor([[1.0, 0, -1], [0, 1, 2]]), tensor([2, 1])),
    (
        tensor([[1e-6, 2e-6, 3e-6], [4e-6, 5e-5, 6e-4], [7e-3, 8e-2, 9e-1]]),
        tensor([1, 2, 0]),
    ),
]
OF_SIGMOIDS = [
    (0.13562961, [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]]),
    (1.10251057, [[0.28808805, 0.11185755, -0.09602935], [0.11185755, -0.00657264, 0.40376765]]),
    (
        0.42287254,
        [
            [0.07457182, -0.02485716, 0.07457201],
            [0.07457211, 0.07457669, -0.02483728],
            [-0.02462499, 0.08277918, 0.18050370],
        ],
    ),
]
OF_SOFTMAX = [
    (0.00566451, [[-0.00657264, 0.00657264], [0.00657264, -0.00657264]]),
    (0.34956908, [[0.10165970, 0.03739851, -0.13905823], [0.01227554, -0.10298023, 0.09070466]]),
    (
        0.15754992,
        [
            [0.02590877, -0.05181759, 0.02590882],
            [0.02589641, 0.02589760, -0.05179400],
            [-0.07307514, 0.02234372, 0.05073142],
        ],
    ),
]
VALUES_AND_GRADIENTS = [
    pytest.param(kind, *rows, *stated, id=f"mmcv, {kind}, {len(rows[1])} x {rows[0].shape[1]}")
    for kind, all_stated in (("sigmoid", OF_SIGMOIDS), ("softmax", OF_SOFTMAX))
    for rows, stated in zip(ROWS, all_stated, strict=True)
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(("kind", "logits", "labels", "value", "slope"), VALUES_AND_GRADIENTS)
def test_value_and_gradient(kind, logits, labels, value, slope, dtype):
    x = logits.to(dtype, copy=True).requires_grad_()
    if kind == "sigmoid":
        loss = sigmoid_focal_loss(x, labels, 0.25, 2.0, "sum") / len(labels)
    else:
        loss = 0.25 * softmax_focal_loss(x, labels, gamma=2.0)
    loss.backward()
    close = {"rtol": 1e-2, "atol": 1e-8} if dtype == torch.float16 else {"rtol": 1e-5, "atol": 2e-8}
    assert loss.item() == pytest.approx(value, rel=close["rtol"])
    torch.testing.assert_close(x.grad, tensor(slope).to(dtype), **close)


# --- the ratio of focal loss to cross entropy: alpha_t (1 - p_t)^gamma ---

SPREAD = [0.001, 0.05, 0.1, 0.19, 0.3, 0.45, 0.5, 0.62, 0.77, 0.81, 0.9, 0.999]
TWO_LABELS = [(p, t) for p in SPREAD for t in (0, 1)]
MIXED = [(0.05, 1), (0.12, 1), (0.89, 0), (0.79, 0)]
RATIOS = [
    pytest.param([(0.95, 1), (0.9, 1), (0.6, 1), (0.3, 1)], 0.5, 2.0, id="fvcore, easy, alpha"),
    pytest.param(TWO_LABELS, None, 2.0, id="fvcore, easy"),
    pytest.param([(p, 1) for p in (0.05, 0.12, 0.09, 0.17)], -1, 2.0, id="fvcore, hard"),
    pytest.param(MIXED, 1.0, 2.0, id="fvcore, no negatives"),
    pytest.param(MIXED, 0.0, 2.0, id="fvcore, no positives"),
    *(
        pytest.param(TWO_LABELS, alpha, gamma, id=f"torchvision, alpha {alpha}, gamma {gamma}")
        for alpha in (-1.0, 0.0, 0.58, 1.0)
        for gamma in (0, 2)
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("examples", "alpha", "gamma"), RATIOS)
def test_ratio_to_cross_entropy(examples, alpha, gamma, dtype):
    logits = tensor([math.log(p / (1 - p)) for p, _ in examples], dtype=dtype)
    targets = tensor([float(t) for _, t in examples], dtype=dtype)
    loss = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    of_label = tensor([p if t else 1 - p for p, t in examples], dtype=torch.float64)
    ratio = (1 - of_label) ** gamma
    if alpha not in (None, -1):
        ratio *= tensor([alpha if t else 1 - alpha for _, t in examples], dtype=torch.float64)
    close = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 0}
    torch.testing.assert_close(loss, (-of_label.log() * ratio).to(dtype), **close)
    assert (ratio <= 1).all()


# --- equal to cross entropy at gamma 0 ---


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def drawn_labels(high, *shape, seed=1):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


FOUR_BY_TWO = tensor([[0.05, 0.9], [0.52, 0.45], [0.89, 0.8], [0.39, 0.5]]).logit()
FOUR_BY_FOUR = tensor(
    [
        [0.95, 0.55, 0.12, 0.05],
        [0.09, 0.95, 0.36, 0.11],
        [0.06, 0.12, 0.56, 0.07],
        [0.09, 0.15, 0.25, 0.45],
    ]
).logit()
EASY = tensor([0.95, 0.90, 0.98, 0.99]).logit().view(1, 4, 1)
OF_FOUR_BY_TWO = tensor([[1.0, 0], [1, 0], [1, 1], [0, 1]])
LOGITS_OF_MIXED = tensor([p for p, _ in MIXED]).logit()[:, None]
TARGETS_OF_MIXED = tensor([[float(t)] for _, t in MIXED])
# probabilities that are small, large, and any
FROM_TORCHVISION = torch.cat(
    [0.2 * drawn(15, 2), 1 - 0.2 * drawn(15, 2, seed=1), drawn(15, 2, seed=2)]
).logit()
EQUAL = [
    pytest.param(EASY, torch.ones(1, 4, 1), "mean", id="fvcore, easy"),
    pytest.param(FOUR_BY_TWO, OF_FOUR_BY_TWO, "mean", id="fvcore, mean"),
    pytest.param(LOGITS_OF_MIXED, TARGETS_OF_MIXED, "sum", id="fvcore, sum"),
    pytest.param(FOUR_BY_FOUR, torch.eye(4), "mean", id="fvcore, classes"),
    *(
        pytest.param(FROM_TORCHVISION, drawn_labels(2, 45, 2).float(), r, id=f"torchvision, {r}")
        for r in ("mean", "sum")
    ),
    *(
        pytest.param(drawn(2, 3, 2), drawn(2, 3, 2, seed=2), r, id=f"kornia, {r}, soft")
        for r in ("none", "mean", "sum")
    ),
    *(
        pytest.param(
            drawn(16, 10, 8, 4), drawn_labels(2, 16, 10, 8, 4).float(), r, id=f"MONAI, {r}"
        )
        for r in ("none", "mean")
    ),
]


@pytest.mark.parametrize(("logits", "targets", "reduction"), EQUAL)
def test_equals_cross_entropy_and_its_gradient(logits, targets, reduction):
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = sigmoid_focal_loss(ours, targets, alpha=-1, gamma=0, reduction=reduction)
    expected = F.binary_cross_entropy_with_logits(theirs, targets, reduction=reduction)
    loss.sum().backward()
    expected.sum().backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
@pytest.mark.parametrize(
    "shape",
    [pytest.param((128, 10, 8, 4), id="MONAI, map"), pytest.param((128, 10), id="MONAI, rows")],
)
def test_labels_equal_cross_entropy_at_gamma_zero_alone(shape, gamma):
    logits, labels = drawn(*shape), drawn_labels(10, shape[0], *shape[2:])
    one_hot = F.one_hot(labels, 10).movedim(-1, 1).float()
    loss = sigmoid_focal_loss(logits, labels, None, gamma, "mean", class_dim=1)
    expected = F.binary_cross_entropy_with_logits(logits, one_hot).item()
    assert (loss.item() == pytest.approx(expected, abs=1e-3)) == (gamma == 0)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_weights_of_classes_and_of_their_positives(reduction):
    """kornia's ``pos_weight`` w is an alpha of w / (1 + w), times 1 + w."""
    logits, targets, weight, of_positives = drawn(2, 3, 2), drawn(2, 3, 2), drawn(3), drawn(3)
    loss = sigmoid_focal_loss(
        logits,
        targets,
        of_positives / (1 + of_positives),
        0.0,
        reduction,
        class_weight=weight * (1 + of_positives),
        class_dim=1,
    )
    expected = F.binary_cross_entropy_with_logits(
        logits, targets, weight[:, None], reduction=reduction, pos_weight=of_positives[:, None]
    )
    torch.testing.assert_close(loss, expected)


# --- FL*, whose shift is 0 at fvcore ---

STAR_IS_CROSS_ENTROPY = {
    "fvcore, easy": (EASY, torch.ones(1, 4, 1), "mean"),
    "fvcore, mean": (FOUR_BY_TWO, OF_FOUR_BY_TWO, "mean"),
    "fvcore, sum": (LOGITS_OF_MIXED, TARGETS_OF_MIXED, "sum"),
    "fvcore, classes": (FOUR_BY_FOUR, torch.eye(4), "mean"),
}


@pytest.mark.parametrize("row", STAR_IS_CROSS_ENTROPY.values(), ids=STAR_IS_CROSS_ENTROPY)
def test_star_of_gamma_one_is_cross_entropy(row):
    logits, targets, reduction = row
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = sigmoid_focal_loss_star(
        ours, targets, alpha=-1, gamma=1.0, beta=0.0, reduction=reduction
    )
    expected = F.binary_cross_entropy_with_logits(theirs, targets, reduction=reduction)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


# alpha, gamma, and the bounds of the ratio of cross entropy to the loss
STAR_RATIOS = {
    "fvcore, easy": ([(0.75, 1), (0.8, 1), (0.12, 0), (0.05, 0)], -1, 3.0, 10.0, math.inf),
    "fvcore, hard": ([(0.05, 1), (0.12, 1), (0.91, 0), (0.85, 0)], -1, 2.0, 0.9, 1.1),
    "fvcore, no negatives": ([(0.89, 0), (0.79, 0)], 1.0, 3.0, math.inf, math.inf),
    "fvcore, no positives": ([(0.05, 1), (0.12, 1)], 0.0, 3.0, math.inf, math.inf),
}


@pytest.mark.parametrize("row", STAR_RATIOS.values(), ids=STAR_RATIOS)
def test_star_against_cross_entropy(row):
    examples, alpha, gamma, least, most = row
    logits = tensor([p for p, _ in examples], dtype=torch.float64).logit()
    targets = tensor([float(t) for _, t in examples], dtype=torch.float64)
    loss = sigmoid_focal_loss_star(logits, targets, alpha=alpha, gamma=gamma, beta=0.0)
    ratio = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") / loss
    assert (ratio >= least).all()
    assert (ratio <= most).all()


def test_star_of_alpha_one_half_is_half():
    logits, targets = tensor(SPREAD).logit(), torch.ones(len(SPREAD))
    whole = sigmoid_focal_loss_star(logits, targets, alpha=-1, gamma=2.0, beta=0.0)
    half = sigmoid_focal_loss_star(logits, targets, alpha=0.5, gamma=2.0, beta=0.0)
    torch.testing.assert_close(half, whole / 2)
