"""What all loss functions have in common: gradients, reductions, shapes, modes of torch."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

import fldet.losses as losses

SIGMOID = {
    "focal": losses.sigmoid_focal_loss,
    "focal, gamma 0.5": partial(losses.sigmoid_focal_loss, alpha=None, gamma=0.5),
    "focal, gamma of classes": partial(losses.sigmoid_focal_loss, gamma=[0.5, 2.0, 3.0]),
    "focal, gamma of p_t": partial(losses.sigmoid_focal_loss, gamma=lambda p: 2 + (p < 0.2) * 3.0),
    "focal, alpha of classes": partial(losses.sigmoid_focal_loss, alpha=[0.1, 0.5, 0.9]),
    "star": losses.sigmoid_focal_loss_star,
    "poly1": losses.poly1_focal_loss,
    "asymmetric": losses.asymmetric_loss,
    "asymmetric, no clip": partial(losses.asymmetric_loss, clip=0.0, gamma_negative=0.5),
    "asymmetric, root": partial(losses.asymmetric_loss, gamma_negative=0.5, gamma_positive=1.0),
    "quality": losses.quality_focal_loss,
    "quality, beta 1.5": partial(losses.quality_focal_loss, beta=1.5),
    "varifocal": losses.varifocal_loss,
    "equalized": partial(losses.equalized_focal_loss, ratios=[0.1, 0.5, 1.0]),
    "ghm": partial(losses.ghm_loss, counts=torch.tensor([50.0, 5, 0, 1, 0, 0, 2, 4, 8, 9])),
}
SOFTMAX = {
    "softmax": losses.softmax_focal_loss,
    "softmax, gamma 0.5": partial(losses.softmax_focal_loss, gamma=0.5),
    "softmax, gamma of classes": partial(losses.softmax_focal_loss, gamma=[0.5, 2.0, 3.0]),
    "softmax, gamma of p": partial(losses.softmax_focal_loss, gamma=lambda p: 5 - 3 * (p > 0.2)),
    "softmax, weighted": partial(losses.softmax_focal_loss, weight=torch.tensor([0.5, 1.0, 2.0])),
    "softmax, smoothed": partial(losses.softmax_focal_loss, label_smoothing=0.2),
}
each_sigmoid = pytest.mark.parametrize("loss", SIGMOID.values(), ids=SIGMOID)
each_softmax = pytest.mark.parametrize("loss", SOFTMAX.values(), ids=SOFTMAX)
each_loss = pytest.mark.parametrize(
    "loss", [*SIGMOID.values(), *SOFTMAX.values()], ids=[*SIGMOID, *SOFTMAX]
)


def random(*shape, seed=0, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul_(scale).to(dtype)


def targets_of(kind, n=7, k=3):
    labels = torch.arange(n) % (k + 1)
    if kind == "labels":
        return labels
    dense = F.one_hot(labels, k + 1)[:, :k].double()
    return dense if kind == "zeros and ones" else (dense + 0.1) * 0.6


KINDS = ["labels", "zeros and ones", "shares"]


@each_sigmoid
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_sigmoid_losses(loss, kind):
    x = random(7, 3).requires_grad_()
    target = targets_of(kind)
    plain = partial(loss, targets=target, reduction="none")
    assert gradcheck(plain, (x,))
    assert gradgradcheck(plain, (x,))
    for reduction in ("mean", "sum", "positives"):
        assert gradcheck(partial(loss, targets=target, reduction=reduction), (x,))


@each_softmax
@pytest.mark.parametrize("kind", ["labels", "shares"])
def test_gradients_of_softmax_losses(loss, kind):
    x = random(7, 3).requires_grad_()
    target = targets_of("labels") % 3 if kind == "labels" else random(7, 3, seed=1).softmax(1)
    plain = partial(loss, target=target, reduction="none")
    assert gradcheck(plain, (x,))
    assert gradgradcheck(plain, (x,))
    for reduction in ("mean", "sum"):
        assert gradcheck(partial(loss, target=target, reduction=reduction), (x,))


@each_sigmoid
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["rows", "map", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_are_those_of_the_elements_in_any_layout(loss, kind, layout, dtype, monkeypatch):
    """In pieces of 64 entries, which end in the middle of a row of a map."""
    monkeypatch.setattr("fldet.losses.sweep.PIECE", 64)
    monkeypatch.setattr("fldet.losses.sweep._CLOSED_PIECE", 64)
    shape = (200, 3) if layout in ("rows", "strided") else (2, 3, 11, 9)
    x = random(*shape, dtype=dtype, scale=5.0)
    n = x.numel() // 3
    target = targets_of(kind, n)
    weight = torch.rand(n, generator=torch.Generator().manual_seed(1))
    options = {}
    if layout in ("map", "channels_last"):
        options = {"class_dim": 1}
        target = target.reshape(2, 11, 9, *target.shape[1:])
        target = target.movedim(-1, 1) if target.dim() == 4 else target
        weight = weight.reshape(2, 11, 9)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        x = torch.stack([x, x], -1)[..., 0]
    x.requires_grad_()
    elements = loss(x, target, reduction="none", weight=weight, **options)
    assert elements.shape == x.shape
    for reduction, expected in (("sum", elements.sum()), ("mean", elements.mean())):
        found = loss(x, target, reduction=reduction, weight=weight, **options)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        slopes = [torch.autograd.grad(v, x, retain_graph=True)[0] for v in (found, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)
        assert slopes[0].stride() == x.stride() or layout == "strided"


@each_sigmoid
def test_positives_divide_by_the_sum_of_the_targets_and_at_least_by_one(loss):
    x = random(7, 3)
    for kind in KINDS:
        target = targets_of(kind)
        number = (target < 3).sum() if kind == "labels" else target.sum()
        expected = loss(x, target, reduction="sum") / number
        torch.testing.assert_close(loss(x, target, reduction="positives"), expected)
    none = torch.full((7,), 3)
    torch.testing.assert_close(loss(x, none, reduction="positives"), loss(x, none, reduction="sum"))


def test_positives_of_a_softmax_do_not_count_the_background():
    x, y = random(7, 3), torch.tensor([0, 1, 2, 0, 0, 1, -100])
    total = losses.softmax_focal_loss(x, y, reduction="sum")
    found = losses.softmax_focal_loss(x, y, reduction="positives", background=0)
    torch.testing.assert_close(found, total / 3)
    found = losses.softmax_focal_loss(x, y, reduction="positives")
    torch.testing.assert_close(found, total / 6)


@each_sigmoid
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "positives"])
@pytest.mark.parametrize(
    ("kind", "ignore_index"),
    [("labels", -100), ("labels", 255), ("labels", 0), ("of logits", -100), ("of logits", 255)],
)
def test_what_is_ignored_does_not_count(loss, kind, ignore_index, reduction):
    x = random(7, 3)
    x[3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    x.requires_grad_()
    labels = torch.tensor([1, 2, 3, 1, 2, 3, 1])
    ignored = torch.tensor([1, 0, 0, 1, 0, 0, 1], dtype=torch.bool)
    if kind == "labels":
        target, kept = torch.where(ignored, ignore_index, labels), labels[~ignored]
    else:
        dense = F.one_hot(labels, 4)[:, :3].double()
        target, kept = torch.where(ignored[:, None], ignore_index, dense), dense[~ignored]
    found = loss(x, target, reduction=reduction, ignore_index=ignore_index)
    expected = loss(x[~ignored], kept, reduction=reduction)
    if reduction == "none":
        assert not found[ignored].any()
        found = found[~ignored]
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert not x.grad[ignored].any()
    assert x.grad[~ignored].any()


@each_loss
def test_nothing_gives_nothing_and_a_gradient(loss):
    x = torch.zeros(0, 3, requires_grad=True)
    for reduction in ("none", "sum"):
        value = loss(x, torch.zeros(0, dtype=torch.long), reduction=reduction)
        value.sum().backward()
        assert value.sum() == 0
    assert x.grad.shape == (0, 3)
    if loss in SIGMOID.values():
        assert loss(x, torch.zeros(0, dtype=torch.long), reduction="mean") == 0


X, Y = random(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
BAD = {
    "targets of another shape": (X, torch.zeros(6, 4), {}),
    "one column of targets": (X, torch.zeros(6, 1), {}),
    "labels in a column": (X, Y[:, None], {}),
    "labels that are too few": (X, Y[:5], {}),
    "labels that are no integers": (X, Y.double(), {}),
    "labels that are booleans": (X, Y > 0, {}),
    "a label above": (X, torch.where(Y == 2, 4, Y), {}),
    "a label below": (X, Y - 1, {}),
    "255 without a word": (X, torch.where(Y == 2, 255, Y), {}),
    "ignored by another name": (X, torch.where(Y == 2, -100, Y), {"ignore_index": 255}),
    "shares above one": (X, torch.full((6, 3), 1.5), {}),
    "shares below zero": (X, torch.full((6, 3), -0.1), {}),
    "shares that are not finite": (X, torch.full((6, 3), torch.nan), {}),
    "logits that are integers": (Y[:, None].expand(6, 3), Y, {}),
    "a reduction of another name": (X, Y, {"reduction": "average"}),
}
BAD_SIGMOID = {
    "weight (N, 1)": {"weight": torch.ones(6, 1)},
    "weight (1, K)": {"weight": torch.ones(1, 3)},
    "weight of each class": {"weight": torch.ones(3)},
    "weight of one number": {"weight": torch.ones(1)},
    "scalar weight": {"weight": torch.ones(())},
    "weight of too few": {"weight": torch.ones(5)},
    "class weight of each example": {"class_weight": torch.ones(6)},
    "class weight (1, K)": {"class_weight": torch.ones(1, 3)},
    "class weight of one number": {"class_weight": torch.ones(1)},
    "no such dimension": {"class_dim": 2},
}


@each_loss
@pytest.mark.parametrize("what", BAD)
def test_wrong_targets_are_refused(loss, what):
    inputs, targets, options = BAD[what]
    with pytest.raises(ValueError, match=r"expected|must be"):
        loss(inputs, targets, **options)


@each_sigmoid
@pytest.mark.parametrize("what", BAD_SIGMOID)
def test_weights_are_not_broadcast(loss, what):
    with pytest.raises(ValueError, match=r"expected|is no dimension"):
        loss(X, Y, **BAD_SIGMOID[what])


@each_softmax
@pytest.mark.parametrize("weight", [torch.ones(6), torch.ones(1), torch.ones(3, 1), torch.ones(())])
def test_class_weights_of_a_softmax_are_not_broadcast(loss, weight):
    with pytest.raises(ValueError, match="expected a weight for each of 3 classes"):
        losses.softmax_focal_loss(X, Y, **{**loss.keywords, "weight": weight}) if isinstance(
            loss, partial
        ) else loss(X, Y, weight=weight)


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        ("sigmoid_focal_loss", {"alpha": 1.5}, "alpha must be None or in"),
        ("sigmoid_focal_loss", {"alpha": -2}, "alpha must be None or in"),
        ("sigmoid_focal_loss", {"alpha": [0.5, 0.5]}, "expected an alpha for each of 3 classes"),
        ("sigmoid_focal_loss", {"gamma": -1.0}, "gamma must be finite and >= 0"),
        ("sigmoid_focal_loss", {"gamma": [1.0, 2.0]}, "expected a gamma for each of 3 classes"),
        ("sigmoid_focal_loss", {"gamma": math.inf}, "gamma must be finite"),
        ("softmax_focal_loss", {"gamma": math.nan}, "gamma must be finite"),
        ("softmax_focal_loss", {"label_smoothing": 1.5}, "label_smoothing must be in"),
        ("sigmoid_focal_loss_star", {"gamma": 0.0}, "gamma must be > 0 and beta finite"),
        ("poly1_focal_loss", {"epsilon": -2.0}, "epsilon must be finite and >= -1"),
        ("poly1_focal_loss", {"gamma": -2.0}, "gamma must be finite and >= 0"),
        ("asymmetric_loss", {"clip": 1.0}, r"clip must be in \[0, 1\)"),
        ("asymmetric_loss", {"gamma_negative": -1.0}, "gamma_negative must be finite"),
        ("quality_focal_loss", {"beta": -1.0}, "beta must be finite"),
        ("varifocal_loss", {"alpha": -1.0}, "alpha must be finite"),
        ("equalized_focal_loss", {"ratios": [1.0]}, "expected a ratio for each of 3 classes"),
        (
            "equalized_focal_loss",
            {"ratios": [1.0] * 3, "gamma": 0.0},
            "gamma must be finite and > 0",
        ),
        ("ghm_loss", {"bins": 0}, "bins must be at least 1"),
    ],
)
def test_settings_out_of_range_are_named(function, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses, function)(X, Y, **settings)


def test_labels_of_a_map_find_its_classes_and_say_so_where_they_could_be_two_dimensions():
    x = random(2, 3, 5, 4)
    labels = torch.randint(0, 4, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    dense = F.one_hot(labels, 4)[..., :3].movedim(-1, 1).double()
    expected = losses.sigmoid_focal_loss(x, dense)
    torch.testing.assert_close(losses.sigmoid_focal_loss(x, labels), expected)
    rows = x.movedim(1, -1)
    torch.testing.assert_close(losses.sigmoid_focal_loss(rows, labels), expected.movedim(1, -1))
    square = random(2, 3, 3)
    with pytest.raises(ValueError, match="say which by class_dim"):
        losses.sigmoid_focal_loss(square, torch.zeros(2, 3, dtype=torch.long))
    last = losses.sigmoid_focal_loss(square, torch.zeros(2, 3, dtype=torch.long), class_dim=-1)
    first = losses.sigmoid_focal_loss(square, torch.zeros(2, 3, dtype=torch.long), class_dim=1)
    assert not torch.equal(last, first)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_half_types_are_computed_in_float32(loss, dtype, reduction):
    half = random(40, 3, dtype=dtype).requires_grad_()
    exact = half.detach().float().requires_grad_()
    target = targets_of("labels", 40) % 3
    found, expected = (loss(x, target, reduction=reduction) for x in (half, exact))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, exact.grad.to(dtype))


@each_loss
def test_autocast_changes_nothing(loss):
    x, target = random(40, 3, dtype=torch.float32), targets_of("labels", 40) % 3
    for reduction in ("none", "sum"):
        expected = loss(x, target, reduction=reduction)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(x, target, reduction=reduction), expected)


@each_loss
@pytest.mark.parametrize("gamma_side", [-1e4, -100.0, -40.0, 40.0, 100.0, 1e4])
def test_gradients_are_finite_for_any_finite_logit(loss, gamma_side):
    x = torch.tensor([[gamma_side, 0.0, -gamma_side]] * 4).requires_grad_()
    for reduction in ("none", "sum"):
        x.grad = None
        loss(x, torch.tensor([0, 1, 2, 0]), reduction=reduction).sum().backward()
        assert x.grad.isfinite().all()


@each_loss
def test_vmap_and_functional_gradients(loss):
    x, target = random(5, 4, 3), targets_of("labels", 20).reshape(5, 4) % 3
    options = {"class_dim": -1} if loss in SIGMOID.values() else {}
    found = torch.vmap(partial(loss, reduction="sum", **options))(x, target)
    expected = torch.stack([loss(*one, reduction="sum") for one in zip(x, target, strict=True)])
    torch.testing.assert_close(found, expected)
    slopes = torch.vmap(torch.func.grad(partial(loss, reduction="sum", **options)))(x, target)
    x.requires_grad_()
    torch.testing.assert_close(slopes, torch.autograd.grad(expected_sum(loss, x, target), x)[0])


def expected_sum(loss, x, target):
    return sum(loss(*one, reduction="sum") for one in zip(x, target, strict=True))


@each_loss
def test_a_reduced_loss_refuses_a_second_derivative_and_says_what_has_one(loss):
    x = random(7, 3).requires_grad_()
    value = loss(x, targets_of("labels") % 3, reduction="sum")
    with pytest.raises(RuntimeError, match="reduction='none'"):
        torch.autograd.grad(value, x, create_graph=True)


@each_sigmoid
def test_a_weight_that_wants_a_gradient_gets_it(loss):
    x, weight = (
        random(7, 3).requires_grad_(),
        torch.rand(7, dtype=torch.float64, requires_grad=True),
    )
    target = targets_of("labels")
    assert gradcheck(lambda w: loss(x.detach(), target, weight=w, reduction="sum"), (weight,))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(
    "function",
    ["sigmoid_focal_loss", "sigmoid_focal_loss_star", "poly1_focal_loss", "quality_focal_loss"],
)
def test_shares_that_want_a_gradient_get_it(function, reduction):
    """As in distillation, where the targets come from another network."""
    x, share = random(7, 3), random(7, 3, seed=1).sigmoid().requires_grad_()
    loss = getattr(losses, function)
    assert gradcheck(lambda t: loss(x, t, reduction=reduction), (share,))
    share = random(7, 3, seed=1).softmax(1).requires_grad_()
    soft = partial(losses.softmax_focal_loss, x, reduction=reduction)
    assert gradcheck(soft, (share,), nondet_tol=0, eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("kind", ["labels", "shares"])
@pytest.mark.parametrize("setting", ["alpha", "gamma"])
def test_settings_that_are_learnt_get_a_gradient(setting, kind, reduction):
    value = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64, requires_grad=True)
    x, target = random(7, 3), targets_of(kind)
    assert gradcheck(
        lambda v: losses.sigmoid_focal_loss(x, target, **{setting: v}, reduction=reduction),
        (value,),
    )


@each_loss
def test_arguments_are_not_written_to(loss):
    x, target = random(7, 3), targets_of("labels") % 3
    before = x.clone(), target.clone()
    leaf = x.requires_grad_()
    loss(leaf, target, reduction="mean").backward()
    assert torch.equal(leaf.detach(), before[0])
    assert torch.equal(target, before[1])


def test_a_dense_target_of_another_float_type_is_taken():
    x = random(64, 64)
    for kind in ("zeros and ones", "shares"):
        for dtype in (torch.float32, torch.bfloat16):
            target = targets_of(kind, 64, 64).to(dtype)
            for loss in (losses.sigmoid_focal_loss, losses.quality_focal_loss):
                for reduction in ("none", "sum"):
                    found = loss(x, target, reduction=reduction)
                    torch.testing.assert_close(found, loss(x, target.double(), reduction=reduction))


def test_one_example_of_a_softmax_has_no_first_dimension():
    x, y = random(3), torch.tensor(1)
    for reduction in ("none", "mean", "sum"):
        found = losses.softmax_focal_loss(x, y, reduction=reduction)
        torch.testing.assert_close(found, losses.softmax_focal_loss(x[None], y[None]).squeeze())


def test_one_class_of_a_softmax_costs_nothing():
    x = random(4, 1).requires_grad_()
    value = losses.softmax_focal_loss(x, torch.zeros(4, dtype=torch.long))
    value.backward()
    assert value == 0
    assert not x.grad.any()


def test_class_balanced_weights():
    counts = [1000, 100, 10]
    assert torch.equal(losses.class_balanced_weights(counts, 0.0), torch.ones(3).double())
    weights = losses.class_balanced_weights(counts, 0.999)
    by_hand = torch.tensor([(1 - 0.999) / (1 - 0.999**n) for n in counts], dtype=torch.float64)
    torch.testing.assert_close(weights, by_hand * 3 / by_hand.sum())
    inverse = losses.class_balanced_weights(counts, 1 - 1e-12)
    torch.testing.assert_close(
        inverse[2] / inverse[0], torch.tensor(100.0).double(), rtol=1e-6, atol=0
    )
    for bad in ([], [1, 0], [1, -1], [[1, 2]], [1, math.nan]):
        with pytest.raises(ValueError, match="expected the number of examples"):
            losses.class_balanced_weights(bad)
    for beta in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="beta must be in"):
            losses.class_balanced_weights(counts, beta)


@pytest.mark.gpu
@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cuda_equals_cpu(loss, dtype, reduction):
    for target in (targets_of("labels", 4000) % 3, targets_of("shares", 4000)):
        target = target if loss in SIGMOID.values() or target.dim() == 1 else target.softmax(1)
        found = []
        for device in ("cpu", "cuda"):
            x = random(4000, 3, dtype=dtype).to(device).requires_grad_()
            settings = {k: on(v, device) for k, v in getattr(loss, "keywords", {}).items()}
            value = getattr(loss, "func", loss)(
                x, target.to(device), reduction=reduction, **settings
            )
            value.sum().backward()
            found.append((value.detach().cpu(), x.grad.cpu()))
        for ours, expected in zip(*found, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def on(value, device):
    return value.to(device) if isinstance(value, torch.Tensor) else value
