"""Line charts as SVG text that follows the page: its colours, light and dark, and its width."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby

Point = tuple[float, float]
Range = tuple[float, float]
Place = Callable[[float, float], tuple[float, float]]

MAX_POINTS = 400  # of a curve; more are averaged in groups
_WIDTH, _HEIGHT = 380, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 10, 42  # margins around the plot


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str  # for the legend; empty leaves it out there
    points: Sequence[Point]  # (x, y); the line has a gap where y is not finite
    style: int = 0  # number of the colour and the dashes, from 0
    marked: bool = False  # whether each point has a dot, with its values as a tooltip
    named: bool = False  # whether its name stands beside its last point, too


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
    logarithmic: bool = False,
    compact: bool = False,
) -> str:
    """Returns a ``figure`` element with title, chart and legend.

    Args:
        lines: at least one, with at least one finite point between them.
        title: above the chart; text, as all labels are.
        x_label: below the horizontal axis.
        y_label: beside the vertical axis.
        x_range: of the axis; None takes that of the points.
        y_range: the same; None begins at 0, of a logarithmic axis at the smallest value.
        logarithmic: whether the vertical axis is; values <= 0 are gaps.
        compact: without legend, for one of many small charts.
    """
    drawn = [_thinned(line, logarithmic) for line in lines]
    finite = [point for line in drawn for point in line.points if math.isfinite(point[1])]
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    x_range = x_range or _widened(min(xs), max(xs))
    y_range = y_range or _widened(min(ys) if logarithmic else min(0.0, *ys), max(ys))
    to_y = math.log10 if logarithmic else float
    low, high = to_y(y_range[0]), to_y(y_range[1])
    y_ticks = _decades(y_range) if logarithmic else _ticks(y_range)
    if not logarithmic:
        high = max(high, y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (to_y(y) - low) / (high - low)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [_grid(place, _ticks(x_range), y_ticks, x_range, x_label, y_label)]
    parts += [_curve(line, place) for line in drawn]
    text = f"{title}: {x_label} against {y_label}. " + " ".join(map(_in_words, lines))
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(text)}">'
        f"{''.join(parts)}</svg>{'' if compact else legend(lines)}</figure>"
    )


def _thinned(line: Line, logarithmic: bool) -> Line:
    """Returns the line with at most ``MAX_POINTS`` points, means of as many neighbours each.

    A mean is over the finite values; it is NaN where there is none.
    """
    points = [(x, y if y > 0 or not logarithmic else math.nan) for x, y in line.points]
    size = -(-len(points) // MAX_POINTS)
    if size > 1:
        groups = [points[i : i + size] for i in range(0, len(points), size)]
        points = [(group[-1][0], _finite_mean([y for _, y in group])) for group in groups]
    return replace(line, points=points)


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _widened(low: float, high: float) -> Range:
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _ticks(limits: Range) -> list[float]:
    """Returns up to seven round numbers; the first is in the range, the last at or above it."""
    rough = (limits[1] - limits[0]) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = min(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.9999)
    first, last = math.ceil(limits[0] / step - 1e-9), math.ceil(limits[1] / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _decades(limits: Range) -> list[float]:
    low, high = (math.log10(value) for value in limits)
    factors = (1,) if high - low > 2 else (1, 2, 5)
    return [
        factor * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for factor in factors
        if low - 1e-9 <= math.log10(factor) + power <= high + 1e-9
    ]


def _grid(
    place: Place,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_range: Range,
    x_label: str,
    y_label: str,
) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for y in y_ticks:
        height = place(x_range[0], y)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {height}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4}" class="end">{_number(y)}</text>')
    for x in x_ticks:
        if x <= x_range[1] * (1 + 1e-9):
            across = place(x, y_ticks[0] if y_ticks else 1.0)[0]
            parts.append(f'<text x="{across}" y="{bottom + 17}" class="mid">{_number(x)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" class="mid">{escape(x_label)}</text>')
    y_middle = (_TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(12 {y_middle}) rotate(-90)" class="mid">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _curve(line: Line, place: Place) -> str:
    parts = []
    for finite, group in groupby(line.points, key=lambda point: math.isfinite(point[1])):
        if not finite:
            continue
        points = list(group)
        path = "L".join("{:g} {:g}".format(*place(x, y)) for x, y in points)
        if len(points) > 1:
            parts.append(f'<path class="line s{line.style}" d="M{path}"/>')
        if line.marked or len(points) == 1:
            parts += [_dot(line, point, place(*point)) for point in points]
    finite_points = [point for point in line.points if math.isfinite(point[1])]
    if line.named and finite_points:
        parts.append(_name_beside(line.name, *place(*finite_points[-1])))
    return "".join(parts)


def _name_beside(name: str, x: float, y: float) -> str:
    """Returns a name below and right of a point, in the right half above and left of it.

    So steps that rise to the right do not cross it.
    """
    is_right = x > (_LEFT + _WIDTH - _RIGHT) / 2
    across, height, anchor = (x - 8, y - 8, ' class="end"') if is_right else (x + 8, y + 16, "")
    return f'<text x="{across:g}" y="{height:g}"{anchor}>{escape(name)}</text>'


def _dot(line: Line, point: Point, at: tuple[float, float]) -> str:
    text = escape(f"{line.name} {_number(point[1])} at {_number(point[0])}".strip())
    return (
        f'<circle class="dot s{line.style}" cx="{at[0]:g}" cy="{at[1]:g}" r="3.5">'
        f"<title>{text}</title></circle>"
    )


def legend(lines: Sequence[Line]) -> str:
    """Returns a list of the names with their lines; empty without names."""
    entries = [
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="line s{line.style}" '
        f'd="M1 5H29"/></svg>{escape(line.name)}</li>'
        for line in lines
        if line.name
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>' if entries else ""


def _in_words(line: Line) -> str:
    finite = [(x, y) for x, y in line.points if math.isfinite(y)]
    if not finite:
        return f"{line.name}: no values."
    (x0, y0), (x1, y1) = finite[0], finite[-1]
    return f"{line.name}: {_number(y0)} at {_number(x0)}, {_number(y1)} at {_number(x1)}."


def _number(value: float) -> str:
    """Returns a number for an axis: 1,200 or 0.25 or 3e-5."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.01:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.3g}"
