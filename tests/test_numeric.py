import math
from fractions import Fraction

import numpy as np
import pytest

from fldet.numeric import are_numbers, is_number, is_whole


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, 10**308, np.float32(1), np.int64(2**62), Fraction(1, 3), 5e-324]
)
def test_numbers(value):
    assert is_number(value)
    assert are_numbers([1.0, value])


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.bool_(True), None, "1", [1], {}, 1j, math.nan, math.inf, -math.inf),
        *(10**400, -(10**5000), Fraction(10**400), np.float32(np.inf), np.float16(np.nan)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_numbers(value):
    assert not is_number(value)
    assert not are_numbers([1.0, value])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        *[(one, True) for one in ("0", "007", "9" * 18, "٣")],
        *[(one, False) for one in ("", "²", "-1", "1.0", " 1", "1_0", "½", "9" * 19, "9" * 5000)],
    ],
)
def test_a_text_that_is_a_whole_number_can_be_converted(text, whole):
    assert is_whole(text) is whole
    assert not whole or int(text) >= 0
