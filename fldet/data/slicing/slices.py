"""Where a large picture is cut: squares of one size that overlap, and cover all of it."""

import math

import numpy as np
import numpy.typing as npt

from fldet.errors import UsageError, shorten
from fldet.numeric import is_number

Ints = npt.NDArray[np.int64]

SMALLEST = 32  # pixels of a slice
OVERLAPS = (0.05, 0.75)  # shares of a slice


def slices(width: int, height: int, size: int, overlap: float) -> Ints:
    """Returns the slices of a picture, (N, 4) xyxy in its pixels, row by row.

    All are ``size`` pixels wide and high, or as wide or high as a picture that is smaller. They lie
    evenly, the first and the last at the picture's borders, so that neighbours share at least
    ``overlap`` of a slice. A picture no larger than a slice is one.
    """
    columns, rows = _starts(width, size, overlap), _starts(height, size, overlap)
    wide, high = min(size, width), min(size, height)
    corners = [(x, y, x + wide, y + high) for y in rows for x in columns]
    return np.array(corners, np.int64)


def check_slices(size: object, overlap: object) -> None:
    """Does nothing if a picture can be cut like this.

    Raises:
        UsageError: ``size`` is no whole number of pixels, or too small; ``overlap`` is none of
            the shares that the parts of an object can be put together again with.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < SMALLEST:
        raise UsageError(
            f"slices of {shorten(size)} pixels", expected=f"a whole number, at least {SMALLEST}"
        )
    low, high = OVERLAPS
    if not (is_number(overlap) and low <= float(str(overlap)) <= high):
        raise UsageError(
            f"slices that overlap by {shorten(overlap)}",
            expected=f"a share of the slice from {low} to {high}",
        )


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    step = max(1, size - math.ceil(size * overlap))
    steps = math.ceil((length - size) / step)
    return [round(number * (length - size) / steps) for number in range(steps + 1)]
