"""Figures 1, 5 and 6 against the closed forms of the paper."""

import cv2
import numpy as np
import pytest

from fldet.analysis.loss_curves import LANDMARKS, loss_curves, plot_loss_curves


@pytest.fixture(scope="module")
def curves():
    return loss_curves()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_figure_1_is_equation_4(curves):
    p_t = np.array(curves.p_t)
    assert list(curves.by_gamma) == [0, 0.5, 1, 2, 5]
    for gamma, losses in curves.by_gamma.items():
        np.testing.assert_allclose(losses, -((1 - p_t) ** gamma) * np.log(p_t), rtol=1e-9)
    assert curves.by_gamma[0][0] > 5  # the axis is full


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("CE", lambda x, p: -np.log(p), lambda x, p: p - 1),
        (
            "FL, gamma = 2",
            lambda x, p: -((1 - p) ** 2) * np.log(p),
            lambda x, p: (1 - p) ** 2 * (2 * p * np.log(p) + p - 1),
        ),
        (
            "FL*, gamma = 2, beta = 1",
            lambda x, p: -np.log(sigmoid(2 * x + 1)) / 2,
            lambda x, p: sigmoid(2 * x + 1) - 1,
        ),
        (
            "FL*, gamma = 4, beta = 0",
            lambda x, p: -np.log(sigmoid(4 * x)) / 4,
            lambda x, p: sigmoid(4 * x) - 1,
        ),
    ],
)
def test_figures_5_and_6_are_those_of_the_appendix(curves, name, value, slope):
    x_t = np.array(curves.x_t)
    assert len(curves.losses) == len(curves.derivatives) == 4
    np.testing.assert_allclose(curves.losses[name], value(x_t, sigmoid(x_t)), rtol=1e-7)
    np.testing.assert_allclose(
        curves.derivatives[name], slope(x_t, sigmoid(x_t)), rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize(("p_t", "factor"), [(0.9, 100), (0.968, 976)])
def test_landmarks_are_those_of_the_text(curves, p_t, factor):
    assert curves.landmarks[0][p_t] / curves.landmarks[2][p_t] == pytest.approx(factor, rel=1e-3)
    assert tuple(curves.landmarks[5]) == LANDMARKS
    assert "p_t = 0.968" in str(curves)


def test_three_pictures_in_two_formats(curves, tmp_path):
    paths = plot_loss_curves(curves, tmp_path)
    assert sorted(path.suffix for path in paths) == [".png"] * 3 + [".svg"] * 3
    assert all(cv2.imread(str(p)).shape == (660, 900, 3) for p in paths if p.suffix == ".png")
