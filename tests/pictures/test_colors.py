import cv2
import numpy as np

from fldet.pictures.colors import PALETTE, color_of, ink_on


def distances():
    """(N, N) distances in CIELAB (1976) of the colours of classes."""
    colors = np.float32([PALETTE]) / 255
    lab = cv2.cvtColor(colors, cv2.COLOR_BGR2LAB)[0]
    return np.linalg.norm(lab[:, None] - lab[None], axis=2)


def test_the_colours_differ_most_of_all_those_of_neighbouring_classes():
    apart = distances() + 1000 * np.eye(len(PALETTE))
    assert len(PALETTE) >= 20
    assert apart.min() > 24
    assert np.diagonal(apart, 1).min() > 45


def test_no_colour_is_black_white_or_grey():
    spread = np.ptp(np.array(PALETTE), axis=1)
    assert (spread >= 45).all()


def test_the_colours_repeat_in_a_fixed_order():
    assert color_of(0) == color_of(len(PALETTE)) == (0, 159, 230)
    assert [color_of(label) for label in range(len(PALETTE))] == list(PALETTE)


def test_ink_is_black_on_light_colours_and_white_on_dark_ones():
    assert ink_on((66, 228, 240)) == (0, 0, 0)
    assert ink_on((180, 0, 120)) == (255, 255, 255)
