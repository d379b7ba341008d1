import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fldet.functional import prior_bias, sigmoid_focal_loss

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
    assert 0 <= focal <= sigmoid_focal_loss(x, t, alpha=None, gamma=0.0)


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
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets), expected, rtol=1e-5, atol=1e-6)


def test_empty_in_empty_out():
    assert sigmoid_focal_loss(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "alpha", "gamma", "message"),
    [
        ((2, 4), 0.25, 2.0, r"shape of logits \(2, 3\), got \(2, 4\)"),
        ((2, 3), 1.5, 2.0, "alpha must be None or in .* got 1.5"),
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
