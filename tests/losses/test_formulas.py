import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fldet.losses import sigmoid_focal_loss
from fldet.losses.formulas import (
    balance,
    cross_entropy,
    focal_loss,
    focal_loss_star,
    hinge_loss,
    prior_bias,
    signed_logits,
)

ALPHAS = [None, 0.0, 0.25, 0.5, 1.0]
GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]


def numpy_focal_loss(logits, targets, alpha, gamma):
    """Eq. 5 as it stands in the paper, in float64, for logits that do not over- or underflow."""
    p = 1 / (1 + np.exp(-logits))
    p_t = np.where(targets == 1, p, 1 - p)
    alpha_t = 1.0 if alpha is None else np.where(targets == 1, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * np.log(p_t)


def sample(seed=0, shape=(50, 7)):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = (torch.rand(shape, generator=generator) < 0.2).double()
    return logits, targets


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_equals_the_formula_in_float64(alpha, gamma):
    logits, targets = sample()
    expected = torch.from_numpy(numpy_focal_loss(logits.numpy(), targets.numpy(), alpha, gamma))
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma),
        expected,
        rtol=1e-10,
        atol=1e-13,
    )


def test_gamma_zero_without_alpha_is_cross_entropy():
    logits, targets = sample()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha=None, gamma=0.0), expected)


def test_gamma_zero_and_alpha_one_half_is_half_cross_entropy():
    logits, targets = sample()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") / 2
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha=0.5, gamma=0.0), expected)


@given(
    logit=st.floats(-50, 50),
    target=st.sampled_from([0.0, 1.0]),
    gamma=st.floats(0, 5),
)
def test_never_above_cross_entropy(logit, target, gamma):
    x, t = torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    focal = sigmoid_focal_loss(x, t, alpha=None, gamma=gamma)
    # at gamma 0 it is torch's own, which subtracts: so many digits of the logit are lost
    assert 0 <= focal <= cross_entropy(signed_logits(x, t)) + 1e-13


@pytest.mark.parametrize(
    ("p_t", "factor", "tolerance"),
    [
        (0.9, 100, 1e-6),  # Sec. 3.2: "100x lower"
        (0.968, 1000, 0.03),  # "1000x lower", rounded in the text
        (0.5, 4, 1e-6),  # "at most 4x"
    ],
)
def test_down_weighting_that_the_paper_states(p_t, factor, tolerance):
    x, t = torch.tensor([math.log(p_t / (1 - p_t))], dtype=torch.float64), torch.ones(1)
    ratio = sigmoid_focal_loss(x, t, alpha=None, gamma=0.0) / sigmoid_focal_loss(
        x, t, alpha=None, gamma=2.0
    )
    assert ratio.item() == pytest.approx(factor, rel=tolerance)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_right(gamma):
    logits, targets = sample(shape=(6, 3))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, targets, alpha=0.25, gamma=gamma), (logits,)
    )


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_extreme_logits_stay_finite_and_keep_their_gradient(gamma, target):
    logits = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.full_like(logits, target), gamma=gamma)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    wrong_side = logits.grad[0] if target else logits.grad[-1]
    assert abs(wrong_side.item()) == pytest.approx(0.25 if target else 0.75)


# Every loss as a function of x_t: with its own formula in p_t, and its derivative as the appendix
# prints it, for y = 1 (Appendix A and B); float64 NumPy.
def _focal(p_t, gamma):
    return -((1 - p_t) ** gamma) * np.log(p_t)


def _focal_slope(p_t, gamma):
    return (1 - p_t) ** gamma * (gamma * p_t * np.log(p_t) + p_t - 1)


def _star(x_t, gamma, beta):
    return -np.log(1 / (1 + np.exp(-gamma * x_t - beta))) / gamma


def _star_slope(x_t, gamma, beta):
    return 1 / (1 + np.exp(-gamma * x_t - beta)) - 1


APPENDIX = [
    pytest.param(cross_entropy, lambda x, p: -np.log(p), lambda x, p: p - 1, id="CE"),
    *(
        pytest.param(
            lambda x, g=gamma: focal_loss(x, g),
            lambda x, p, g=gamma: _focal(p, g),
            lambda x, p, g=gamma: _focal_slope(p, g),
            id=f"FL {gamma}",
        )
        for gamma in GAMMAS
    ),
    *(
        pytest.param(
            lambda x, g=gamma, b=beta: focal_loss_star(x, g, b),
            lambda x, p, g=gamma, b=beta: _star(x, g, b),
            lambda x, p, g=gamma, b=beta: _star_slope(x, g, b),
            id=f"FL* {gamma} {beta}",
        )
        for gamma, beta in [(2.0, 1.0), (4.0, 0.0), (1.0, 0.0), (0.5, -1.0)]
    ),
    pytest.param(
        hinge_loss,
        lambda x, p: np.maximum(0, 0.5 - p),
        lambda x, p: np.where(p < 0.5, -p * (1 - p), 0),
        id="hinge",
    ),
]
appendix = pytest.mark.parametrize(("loss", "formula", "slope"), APPENDIX)


@appendix
def test_loss_and_derivative_are_those_of_the_appendix(loss, formula, slope):
    x_t = torch.linspace(-15.1, 15, 400, dtype=torch.float64, requires_grad=True)
    x = x_t.detach().numpy()
    p_t = 1 / (1 + np.exp(-x))
    value = loss(x_t)
    value.sum().backward()
    expected = torch.from_numpy(np.asarray(formula(x, p_t)))
    torch.testing.assert_close(value.detach(), expected, rtol=1e-8, atol=1e-13)
    torch.testing.assert_close(x_t.grad, torch.from_numpy(slope(x, p_t)), rtol=1e-8, atol=1e-13)


@appendix
def test_float32_gradients_are_right_far_out(loss, formula, slope):
    x_t = torch.tensor([-1e4, -1e3, -100, -30, -17, 0.1, 17, 30, 100, 1e3, 1e4])
    single, double = x_t.requires_grad_(), x_t.detach().double().requires_grad_()
    value = loss(single)
    value.sum().backward()
    loss(double).sum().backward()
    assert torch.isfinite(value).all()
    torch.testing.assert_close(single.grad, double.grad.float(), rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(
    ("gamma", "beta"), [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (2.0, math.inf)]
)
def test_star_refuses_parameters_without_meaning(gamma, beta):
    with pytest.raises(ValueError, match="gamma must be > 0 and beta finite"):
        focal_loss_star(torch.zeros(1), gamma, beta)


def test_star_with_gamma_one_and_beta_zero_is_cross_entropy():
    x_t = torch.linspace(-9, 9, 19)
    torch.testing.assert_close(focal_loss_star(x_t, 1.0, 0.0), cross_entropy(x_t))


# --- targets ---


@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,)])
@pytest.mark.parametrize("alpha", [None, 0.25, [0.1, 0.5, 0.9]])
def test_labels_mean_the_matrix_of_zeros_and_ones(shape, alpha):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(*shape, 3, generator=generator)
    labels = torch.randint(0, 4, shape, generator=generator)
    matrix = F.one_hot(labels, 4)[..., :3]
    assert torch.equal(signed_logits(logits, labels), signed_logits(logits, matrix))
    loss = logits.abs()
    assert torch.equal(balance(loss, labels, alpha), balance(loss, matrix, alpha))


def test_x_t_is_the_logit_for_the_class_of_an_object_and_minus_it_elsewhere():
    x_t = signed_logits(torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([1, 3]))
    assert x_t.tolist() == [[-1, 2, -3], [-4, -5, -6]]


def test_labels_leave_the_logits_as_they_are():
    logits = torch.ones(2, 3)
    signed_logits(logits, torch.tensor([0, 3]))
    assert torch.equal(logits, torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    logits, targets = sample()
    half = logits.to(dtype)
    loss = sigmoid_focal_loss(half, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, sigmoid_focal_loss(half.float(), targets))


def test_agrees_with_mmdet():
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    logits, targets = (x.float() for x in sample())
    expected = py_sigmoid_focal_loss(logits, targets, reduction="none")
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets), expected, rtol=1e-6, atol=1e-6)


def test_empty_in_empty_out():
    assert sigmoid_focal_loss(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "alpha", "gamma", "message"),
    [
        ((2, 4), 0.25, 2.0, r"or targets of the shape of the logits, \(2, 3\), got \(2, 4\)"),
        ((2, 3), 1.5, 2.0, "alpha must be None or in .* got 1.5"),
        ((2, 3), [0.2, 0.3], 2.0, "expected an alpha for each of 3 classes"),
        ((2, 3), 0.25, -1.0, "gamma must be finite and >= 0, got -1.0"),
        ((2, 3), 0.25, math.nan, "gamma must be finite"),
    ],
)
def test_wrong_arguments_are_named(shape, alpha, gamma, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(shape), alpha=alpha, gamma=gamma)


def test_prior_bias_gives_the_prior_back():
    assert torch.sigmoid(torch.tensor(prior_bias(0.01))).item() == pytest.approx(0.01)
    with pytest.raises(ValueError, match=r"prior_prob must be in \(0, 1\), got 1"):
        prior_bias(1)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan"), 2, -1])
def test_signs_and_balance_need_targets_of_zero_and_one(value):
    targets = torch.tensor([[0, 1], [1, 0]]).to(torch.tensor(value).dtype)
    assert signed_logits(torch.zeros(2, 2), targets).shape == (2, 2)
    targets[1, 1] = value
    for function in (signed_logits, partial(balance, alpha=0.25)):
        with pytest.raises(ValueError, match="must be 0 or 1"):
            function(torch.zeros(2, 2), targets)
