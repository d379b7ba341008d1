"""Numbers from files and configs, in which a whole number may have hundreds of digits."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

_PLAIN = {float, int}


def is_number(value: Any) -> bool:
    """Returns whether a value is a number that a float holds: finite, not too large, no bool."""
    return are_numbers((value,))


def are_numbers(values: Sequence[Any]) -> bool:
    """Returns whether all values are what ``is_number`` takes for a number; none are."""
    # checking against the abstract type is slow
    if not _PLAIN.issuperset(map(type, values)) and not all(
        isinstance(value, Real) and not isinstance(value, bool) for value in values
    ):
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:  # a whole number that is no float
        return False


def is_whole(value: str) -> bool:
    """Returns whether a text is a whole number, at least 0, of at most 18 digits of any script."""
    return value.isdecimal() and len(value) <= 18
