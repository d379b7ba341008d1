"""What went wrong in silence once, each as a kind: types, functions for gamma, edges, counts."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import fldet.losses as losses


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


X = random(5, 3)
Y = torch.tensor([0, 1, 2, 2, 1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gamma": 0.5},
        {"gamma": [1.0, 2.0, 3.0], "reduction": "mean"},
        {"gamma": lambda p: 2 + p, "background": None},
        {"weight": torch.ones(3)},
        {"label_smoothing": 0.1},
        {"gamma": 0.0, "weight": torch.ones(3)},
    ],
    ids=lambda settings: "".join(settings) or "plain",
)
def test_a_mean_of_no_label_is_nan_and_leaves_the_weights_alone(settings):
    x = X.clone().requires_grad_()
    value = losses.softmax_focal_loss(x, torch.full((5,), -100), **settings)
    value.backward()
    assert value.isnan()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("ignore_index", [-100, -1, 255, 300, 156])
@pytest.mark.parametrize("loss", [losses.sigmoid_focal_loss, losses.softmax_focal_loss])
def test_an_index_that_a_type_cannot_hold_ignores_nothing(loss, ignore_index, dtype):
    limits = torch.iinfo(dtype)
    for label in (-100, -1, 156, 255):
        if not limits.min <= label <= limits.max:
            continue
        target = torch.tensor([label, 0, 1, 2, 0], dtype=dtype)
        if label == ignore_index:
            found = loss(X, target, reduction="sum", ignore_index=ignore_index)
            torch.testing.assert_close(found, loss(X[1:], target[1:], reduction="sum"))
        else:
            with pytest.raises(ValueError, match="labels must be in"):
                loss(X, target, reduction="sum", ignore_index=ignore_index)


def test_dense_targets_of_small_integers_too():
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        losses.sigmoid_focal_loss(X, torch.full((5, 3), 156, dtype=torch.uint8))


PER_CLASS = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    "gamma", [lambda p: PER_CLASS * (1 - p), lambda p: torch.ones(7), lambda p: p[:1]]
)
@pytest.mark.parametrize("loss", [losses.sigmoid_focal_loss, losses.softmax_focal_loss])
def test_a_function_for_gamma_is_one_of_each_probability(loss, gamma, reduction):
    with pytest.raises(ValueError, match="expected a gamma for each of"):
        loss(X, Y, gamma=gamma, reduction=reduction)


@pytest.mark.parametrize("loss", [losses.sigmoid_focal_loss, losses.softmax_focal_loss])
def test_what_a_function_for_gamma_learns_gets_a_gradient(loss):
    slopes = []
    for reduction in ("sum", "none"):
        w = torch.tensor(1.0, requires_grad=True)
        loss(X, Y, gamma=lambda p, w=w: w * p + 1, reduction=reduction).sum().backward()
        slopes.append(w.grad)
    torch.testing.assert_close(*slopes)
    assert slopes[0] != 0


@pytest.mark.parametrize("loss", [losses.sigmoid_focal_loss, losses.poly1_focal_loss])
def test_the_gradient_of_targets_does_not_jump_where_they_are_labels(loss):
    slopes = []
    for hard in (torch.tensor([1.0, 0.0]), torch.tensor([1 - 1e-5, 1e-5])):
        t = hard.clone().requires_grad_()
        loss(torch.tensor([1.0, -2.0]), t, alpha=None, reduction="sum").backward()
        slopes.append(t.grad)
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("loss", [losses.sigmoid_focal_loss, losses.sigmoid_focal_loss_star])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_shares_keep_the_digits_of_half_types(loss, dtype):
    x, t = random(5000, 20, dtype=dtype), torch.rand(5000, 20)
    slopes = []
    for one, reduction in ((x, "sum"), (x.double(), "none")):
        one = one.clone().requires_grad_()
        loss(one, t, alpha=None, reduction=reduction).sum().backward()
        slopes.append(one.grad.double())
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(*slopes, rtol=step, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_few_objects_in_a_map_of_half_types(dtype):
    x = random(2, 20, 64, 64, dtype=dtype).requires_grad_()
    t = torch.full((2, 64, 64), 20)
    t[:, :4, :4] = 1
    value = losses.sigmoid_focal_loss(x, t, reduction="mean")
    torch.testing.assert_close(value, losses.sigmoid_focal_loss(x.detach(), t).mean())
    value.backward()


class Named(torch.Tensor):
    """A subclass such as a mask of torchvision."""


def test_labels_of_a_subclass_are_checked():
    with pytest.raises(ValueError, match="labels must be in"):
        losses.sigmoid_focal_loss(X, torch.tensor([0, 1, 2, 3, 255]).as_subclass(Named))


def test_shares_with_settings_of_classes_want_to_know_where_the_classes_are():
    x, t = random(2, 3, 5, 3), torch.zeros(2, 3, 5, 3)
    plain = losses.sigmoid_focal_loss(x, t)
    for settings in (
        {"class_weight": [1.0, 10, 100]},
        {"alpha": [0.1, 0.5, 0.9]},
        {"gamma": [0.0, 1, 2]},
        {"weight": torch.ones(2, 3, 5)},
    ):
        with pytest.raises(ValueError, match="class_dim"):
            losses.sigmoid_focal_loss(x, t, **settings)
    assert torch.equal(losses.sigmoid_focal_loss(x, t, class_weight=[1.0] * 3, class_dim=1), plain)


def test_a_logit_that_is_not_finite_does_not_stay_in_the_counts():
    loss = losses.EqualizedFocalLoss(3)
    broken = X.clone()
    broken[0, 0] = torch.nan
    loss(X, Y)
    before = loss.ratios.positives.clone()
    loss(broken, Y)
    assert loss.ratios.positives.isfinite().all()
    assert (loss.ratios.positives >= before).all()
    assert losses.ghm_loss(broken, Y).isnan()  # and no crash


@pytest.mark.parametrize("half", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_counts_of_a_half_module_do_not_overflow(half):
    equalized, ghm = half(losses.EqualizedFocalLoss(2)), half(losses.GHMLoss(momentum=0.75))
    x = random(400_000, 2, dtype=torch.float16)
    y = torch.arange(400_000) % 3
    for _ in range(3):
        assert equalized(x, y).isfinite()
        assert ghm(x, y).isfinite()
    assert equalized.ratios.positives.dtype == torch.float64
    assert ghm.counts.counts.dtype == torch.float32


def test_the_sums_are_of_as_many_classes_as_the_module():
    loss = losses.EqualizedFocalLoss(3)
    with pytest.raises(ValueError, match="expected"):
        loss(random(4, 1), torch.zeros(4, dtype=torch.long))
    assert not loss.ratios.positives.any()


def test_at_gamma_zero_what_is_ignored_may_be_anything_and_a_ramp_may_end_there():
    x = random(3, 4)
    x[1] = torch.nan
    x.requires_grad_()
    losses.softmax_focal_loss(x, torch.tensor([0, -100, 2]), gamma=0.0).backward()
    assert x.grad.isfinite().all()
    ramp = losses.SoftmaxFocalLoss(gamma=losses.GammaRamp(1.0, 0.0, 1), ignore_index=255)
    share = random(3, 4, seed=1).softmax(1)
    for _ in range(3):
        assert ramp(random(3, 4), share).isfinite()


def test_what_weighs_nothing_is_not_counted_by_ghm():
    x, y = random(8, 1), torch.arange(8)[:, None] % 2.0
    weight = torch.tensor([1.0] * 4 + [0.0] * 4)[:, None]
    torch.testing.assert_close(losses.ghm_loss(x, y, weight=weight), losses.ghm_loss(x[:4], y[:4]))


def test_a_class_that_is_ruled_out():
    """By a logit of -inf, as attention masks and label masks do."""
    for reduction in ("none", "sum"):
        x = torch.tensor([[1.0, -torch.inf], [2.0, 1.0]], requires_grad=True)
        value = losses.softmax_focal_loss(x, torch.tensor([0, 1]), reduction=reduction)
        value.sum().backward()
        assert value.isfinite().all()
        assert x.grad.isfinite().all()
    masked = torch.tensor([[1.0, -torch.inf]])
    for loss in (losses.sigmoid_focal_loss, losses.asymmetric_loss, losses.poly1_focal_loss):
        assert loss(masked, torch.tensor([[1.0, 0.0]]), reduction="sum").isfinite()


def test_a_small_clip_of_the_asymmetric_loss():
    x = torch.tensor([[40.0]], dtype=torch.float64)
    exact = losses.asymmetric_loss(x, torch.zeros(1, 1), clip=1e-10, gamma_negative=0.0)
    expected = -torch.log(torch.sigmoid(-x) + 1e-10)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=0)
    assert losses.asymmetric_loss(x.float() / 2, torch.zeros(1, 1), clip=1e-8).isfinite()


@pytest.mark.parametrize("gamma", ["numpy", "tensor"])
def test_numbers_of_other_kinds(gamma):
    import numpy as np

    value = np.float32(2) if gamma == "numpy" else torch.tensor(2.0)
    for loss in (losses.sigmoid_focal_loss, losses.softmax_focal_loss):
        expected = loss(X, Y, gamma=2.0, reduction="sum")
        torch.testing.assert_close(loss(X, Y, gamma=value, reduction="sum"), expected)
    with pytest.raises(ValueError, match="expected a tensor of weights"):
        losses.sigmoid_focal_loss(X, Y, weight=[1.0] * 5)


def test_a_weight_of_what_is_ignored_may_be_anything():
    y, weight = torch.tensor([0, -100, 1, 2, 3]), torch.tensor([1.0, torch.nan, 1, 1, 1])
    for reduction in ("none", "sum", "mean"):
        assert losses.sigmoid_focal_loss(X, y, weight=weight, reduction=reduction).isfinite().all()


@pytest.mark.parametrize(
    "module",
    [
        losses.FocalLoss(gamma=losses.GammaRamp(0.0, 2.0, 4)),
        losses.SoftmaxFocalLoss(torch.ones(3), gamma=[1.0, 2.0, 0.5]),
        losses.EqualizedFocalLoss(3),
        losses.GHMLoss(momentum=0.5),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_are_copied_pickled_and_compiled(module):
    module(X, Y)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(copied.eval()(X, Y), copy.deepcopy(module).eval()(X, Y))
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, Y), copy.deepcopy(module)(X, Y))


@pytest.mark.parametrize("loss", [losses.sigmoid_focal_loss, losses.softmax_focal_loss])
def test_inside_activation_checkpointing(loss):
    x = X.clone().requires_grad_()
    checkpoint(lambda a: loss(a, Y, reduction="sum"), x, use_reentrant=False).backward()
    expected = torch.autograd.functional.jacobian(lambda a: loss(a, Y, reduction="sum"), X)
    torch.testing.assert_close(x.grad, expected)


def test_a_mean_of_large_float16_logits():
    x = torch.full((70_000, 1), -10.0, dtype=torch.float16)
    value = losses.sigmoid_focal_loss(x, torch.ones(70_000, 1), None, 2.0, "mean")
    torch.testing.assert_close(value, F.softplus(torch.tensor(10.0)), rtol=1e-3, atol=0)
