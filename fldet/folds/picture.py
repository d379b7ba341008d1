"""The figures of a cross-validation as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fldet.folds.result import CrossValidation, FoldFigure
from fldet.pictures.figure import BLUE, VERMILION, figure, label, save, small_print

MOST_ROWS = 40  # classes that are drawn, those with the lowest AP

_NOTE = (
    "dots: folds, each by the model not trained on it; line: mean; bar: one standard deviation to "
    "either side"
)


def plot_folds(result: CrossValidation, stem: Path) -> list[Path]:
    """Draws figures on the left, AP of classes on the right; returns the paths of PNG and SVG."""
    classes = [one for one in result.classes if not math.isnan(one.mean)]
    note = _NOTE
    if len(classes) > MOST_ROWS:
        classes = sorted(classes, key=lambda one: one.mean)[:MOST_ROWS]
        note += f"; the {MOST_ROWS} classes with the lowest AP"
    halves = [([one for one in result.figures if not math.isnan(one.mean)], "figure [%]")]
    if classes:
        halves.append((classes, "AP of the class [%]"))
    rows = max(4, *(len(some) for some, _ in halves))
    with figure(6.5 * len(halves), 1.8 + 0.5 * rows) as drawn:
        for axes, (some, quantity) in zip(
            drawn.subplots(1, len(halves), squeeze=False)[0], halves, strict=True
        ):
            _draw(axes, some, quantity)
        count = result.folds.count
        drawn.suptitle(f"{count}-fold cross-validation, {sum(result.images)} images")
        small_print(drawn, note)
        return save(drawn, stem)


def _draw(axes: Any, rows: Sequence[FoldFigure], quantity: str) -> None:
    for place, row in enumerate(rows):
        values = [value for value in row.folds if not math.isnan(value)]
        if not math.isnan(row.deviation):
            ends = [max(0.0, row.mean - row.deviation), min(100.0, row.mean + row.deviation)]
            axes.plot(
                ends, [place, place], color=BLUE, alpha=0.3, linewidth=10, solid_capstyle="butt"
            )
        axes.plot(values, [place] * len(values), "o", color=BLUE, markersize=6)
        axes.plot([row.mean] * 2, [place - 0.3, place + 0.3], color=VERMILION)
    axes.set_yticks(range(len(rows)), [label(row.name, 30) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(quantity)
