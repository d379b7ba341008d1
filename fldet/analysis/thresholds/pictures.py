"""Precision, recall and F1 of each class over the threshold, with the one that was chosen."""

from math import ceil
from pathlib import Path
from typing import Any

from fldet.analysis.thresholds.result import ClassThreshold, ThresholdAnalysis
from fldet.pictures.figure import figure, label, line_style, save, small_print

SHOWN = 12  # classes at most, those with most objects
FIGURES = ("precision", "recall", "F1")
_COLUMNS = 3


def plot_thresholds(analysis: ThresholdAnalysis, folder: Path) -> list[Path]:
    """Draws the classes with most objects, as PNG and SVG; returns the paths."""
    names = [name for name, curve in analysis.curves.items() if curve]
    names = sorted(names, key=lambda name: -analysis.classes[name].objects)[:SHOWN]
    columns = min(_COLUMNS, len(names))
    rows = ceil(len(names) / columns)
    with figure(1.5 + 4.6 * columns, 1.6 + 3.6 * rows) as drawn:
        panels = drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for name, axes in zip(names, panels.flat, strict=False):
            _draw_class(axes, label(name, 30), analysis.classes[name], analysis.curves[name])
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        handles, texts = panels.flat[0].get_legend_handles_labels()
        drawn.legend(handles, texts, loc="outside upper center", ncols=4, fontsize=13)
        drawn.supylabel("share")
        small_print(
            drawn,
            f"Dot: the threshold chosen ({analysis.chosen}). Band: {analysis.interval}.\n"
            f"{label(analysis.source)}. {len(names)} of {len(analysis.classes)} classes.",
            size=11,
        )
        return save(drawn, folder / "thresholds")


def _draw_class(axes: Any, title: str, one: ClassThreshold, curve: Any) -> None:
    scores, *figures = zip(*curve, strict=True)
    for place, (name, values) in enumerate(
        zip(("precision", "recall", "F1"), figures, strict=True)
    ):
        axes.plot(scores, values, **line_style(1 + place if place < 2 else 0), label=name)
    if one.low <= one.high:
        axes.axvspan(one.low, one.high, color="0.85", zorder=0)
    if one.f1 == one.f1:
        axes.axvline(one.score, color="0.5", linewidth=1)
        axes.plot([one.score], [one.f1], "o", color="black", markersize=8)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold")
    axes.set_title(f"{title}: {one.score:.2f}, F1 {one.f1:.2f}", fontsize=14)
    axes.label_outer()
