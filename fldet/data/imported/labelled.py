"""What every reader of another tool's files returns, and the boxes around its shapes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.data.folders import files_below
from fldet.errors import DataError, shorten
from fldet.numeric import is_number

Corners = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels, from 0


@dataclass(frozen=True)
class Shape:
    """A box, or the box around another shape."""

    label: str
    corners: Corners
    ignored: bool = False  # neither learned nor counted


@dataclass(frozen=True)
class LabelledImage:
    """An image as the annotations name it, and what is on it."""

    name: str  # as it is written: a name, a path or an address
    shapes: Sequence[Shape]
    size: tuple[int, int] | None = None  # width and height in pixels, where they are stated
    where: str = ""  # file, and place in it, for messages


@dataclass
class LeftOut:
    """How many shapes of which kinds no box can be made of, or none is meant."""

    counts: dict[str, int]

    def add(self, kind: str, count: int = 1) -> None:
        """Counts more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + count

    def __str__(self) -> str:
        return ", ".join(f"{kind}: {count}" for kind, count in sorted(self.counts.items()))


def numbers(values: Iterable[Any], count: int, where: str, what: str) -> list[float]:
    """Returns finite numbers of texts or numbers, as many as are wanted (0: any even number).

    Raises:
        DataError: they are others; names the place and what they are.
    """
    found = [_number(value) for value in values]
    good = len(found) == count if count else len(found) >= 4 and len(found) % 2 == 0
    if not good or None in found:
        raise DataError(
            f"{where}: {what} is no {count or 'even number of'} numbers",
            expected=f"{what}: {count or 'pairs of'} finite numbers in pixels",
        )
    return [value for value in found if value is not None]


def _number(value: Any) -> float | None:
    if isinstance(value, str) and "_" not in value:  # Python takes 1_0 for 10
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_number(value) else None


def stated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Returns the size of an image as a file says it, None where it does not."""
    sides = _number(width), _number(height)
    if any(side is None or not 0 < side < 2**31 or side % 1 for side in sides):
        return None
    return int(sides[0] or 0), int(sides[1] or 0)


def label_of(value: Any, where: str) -> str:
    """Returns the name of a class, blanks at its ends removed."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the label is {shorten(value)}", expected="a name")
    return value.strip()


def around(points: Sequence[float]) -> Corners:
    """Returns the upright box around points: x1, y1, x2, y2, ... in pixels."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def turned(corners: Corners, degrees: float, pivot: tuple[float, float]) -> Corners:
    """Returns the upright box around a box that is turned clockwise about a point."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    points: list[float] = []
    for x in corners[::2]:
        for y in corners[1::2]:
            dx, dy = x - pivot[0], y - pivot[1]
            points += [pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos]
    return around(points)


def centre(corners: Corners) -> tuple[float, float]:
    """Returns the middle of a box."""
    return (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Corners:
    """Returns the upright box around an ellipse that is turned about its middle."""
    angle = math.radians(degrees)
    w = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    h = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return cx - w, cy - h, cx + w, cy + h


def files_of(path: Path, endings: Sequence[str]) -> list[Path]:
    """Returns a file, or the files with the endings in a folder and those in it."""
    return files_below(path, endings) if path.is_dir() else [path]
