"""Four figures of the errors of a detector: kinds, confusions, curves and calibration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fldet.analysis.errors.result import BINS, ErrorAnalysis, mean_precision
from fldet.evaluation.matching import AREAS, RECALLS
from fldet.pictures.colors import PALETTE
from fldet.pictures.figure import (
    BLUE,
    PLAIN,
    VERMILION,
    figure,
    label,
    save,
    shortened,
    small_print,
)

# Places in PALETTE: a kind has one colour in every picture.
COLORS = {
    "classification": 5,
    "localisation": 1,
    "both": 6,
    "duplicate": 3,
    "background": 0,
    "missed": 4,
    "correct": 2,
}
SHOWN_CLASSES = 20  # at most, in the confusion matrix
SHOWN_CURVES = 11  # classes at most, beside their mean

_AREA_STYLE = {"all": ("#000000", "-"), "small": ("#D55E00", ":")}
_AREA_STYLE |= {"medium": ("#56B4E9", "--"), "large": ("#0072B2", "-.")}


def plot_errors(analysis: ErrorAnalysis, folder: Path) -> list[Path]:
    """Draws the four figures, each as PNG and SVG; returns the paths."""
    ap50 = "undefined" if analysis.ap50 != analysis.ap50 else f"{analysis.ap50:.3f}"
    source = (
        f"{label(analysis.results)} on {label(analysis.annotations)}: {analysis.images} images, "
        f"{analysis.objects} objects, {analysis.detections} detections, AP50 {ap50}."
    )
    panels: dict[str, tuple[tuple[float, float], Callable[[Any, ErrorAnalysis], str]]] = {
        "kinds": ((13, 6.5), _draw_kinds),
        "confusion": (_confusion_size(analysis), _draw_confusion),
        "curves": (_curves_size(analysis), _draw_curves),
        "calibration": ((9, 10), _draw_calibration),
    }
    files = []
    for name, (size, draw) in panels.items():
        with figure(*size, PLAIN) as drawn:
            procedure = draw(drawn, analysis)
            small_print(drawn, f"{procedure}\n{source}", size=11, color="#444444")
            files += save(drawn, folder / f"errors_{name}")
    return files


def hex_color(state: str) -> str:
    """Returns the colour of a kind for Matplotlib."""
    blue, green, red = PALETTE[COLORS[state]]
    return f"#{red:02x}{green:02x}{blue:02x}"


# --- kinds ---------------------------------------------------------------------------------------


def _draw_kinds(drawn: Any, analysis: ErrorAnalysis) -> str:
    gains, counts = drawn.subplots(1, 2, sharey=True)
    names, kinds = list(analysis.kinds), list(analysis.kinds.values())
    colors, rows = [hex_color(name) for name in names], range(len(names))
    values = np.nan_to_num([100 * kind.ap50_gain for kind in kinds])
    gains.barh(rows, values, color=colors)
    gains.set_yticks(rows, names)
    gains.invert_yaxis()
    gains.set_xlim(0, max(1, values.max()) * 1.2)
    gains.set(xlabel="AP50 gained [points of 100]", title="Cost: gain if this alone is repaired")
    for row, value in enumerate(values):
        gains.text(value, row, f" {value:.1f}", va="center")
    counts.barh(rows, [kind.count for kind in kinds], color=colors, alpha=0.35)
    counts.barh(rows, [kind.confident for kind in kinds], color=colors)
    counts.set_xlim(0.7, max(10, *(kind.count for kind in kinds)) * 12)
    counts.set_xscale("log")
    counts.xaxis.set_major_formatter("{x:g}")
    counts.set(
        xlabel="mistakes, logarithmic", title=f"Number, dark: score ≥ {analysis.score_thr:g}"
    )
    for row, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        text = f"{kind.count}" if name == "missed" else f"{kind.count} ({kind.confident})"
        counts.text(max(kind.count, 0.7), row, f" {text}", va="center")
    return (
        "Kinds after TIDE (Bolya et al., ECCV 2020); foreground from IoU 0.5, background up to "
        "IoU 0.1. Gains do not add up.\nMissed: objects that no detection found and that no "
        "classification or localisation mistake points to."
    )


# --- confusions ----------------------------------------------------------------------------------


def shown_classes(analysis: ErrorAnalysis) -> list[int]:
    """Returns the labels with most mistakes, at most 20, in their order."""
    matrix = np.array(analysis.confusion)
    mistakes = (matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal())[:-1]
    return sorted(np.argsort(-mistakes, kind="stable")[:SHOWN_CLASSES].tolist())


def _confusion_size(analysis: ErrorAnalysis) -> tuple[float, float]:
    side = len(shown_classes(analysis)) + 1
    return max(9.5, 3.5 + 0.58 * side), max(8.0, 3.5 + 0.5 * side)


def _draw_confusion(drawn: Any, analysis: ErrorAnalysis) -> str:
    shown = shown_classes(analysis)
    whole = np.array(analysis.confusion)
    matrix = whole[np.ix_([*shown, -1], [*shown, -1])]
    share = matrix / np.maximum(whole.sum(axis=1)[[*shown, -1]], 1)[:, None]
    axes = drawn.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [label(shortened(analysis.classes[number], 18)) for number in shown]
    ticks = range(len(matrix))
    axes.set_xticks(ticks, [*names, "missed"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [*names, "background"])
    axes.axhline(len(shown) - 0.5, color="black")
    axes.axvline(len(shown) - 0.5, color="black")
    for row, column in np.argwhere(matrix).tolist():
        color = "white" if share[row, column] > 0.5 else "black"
        place = {"ha": "center", "va": "center", "color": color, "fontsize": 13}
        axes.text(column, row, f"{matrix[row, column]}", **place)
    axes.set(xlabel="predicted class", ylabel="true class")
    drawn.colorbar(picture, label="share of the row", pad=0.02)
    number = len(analysis.classes)
    title = f"Confusions at score ≥ {analysis.score_thr:g}"
    some = f": the {len(shown)} of {number} classes with most mistakes"
    axes.set_title(title + (some if len(shown) < number else ""))
    return (
        "Numbers are counts; IoU ≥ 0.5. Detections that found an object of their class come first; "
        "the others,\nbest score first, take a free object of another class, or none: background, "
        "which counts misplaced boxes\nand duplicates too. A row's share is of all its entries, "
        "classes that are not shown included."
    )


# --- curves --------------------------------------------------------------------------------------


def shown_curves(analysis: ErrorAnalysis) -> list[int]:
    """Returns the labels with most objects, at most 11, the one with most first."""
    objects = [sum(row) for row in analysis.confusion[:-1]]
    present = [label for label, count in enumerate(objects) if count]
    return sorted(present, key=lambda label: -objects[label])[:SHOWN_CURVES]


def _curves_size(analysis: ErrorAnalysis) -> tuple[float, float]:
    panels = len(shown_curves(analysis)) + 1
    return 15.0 if panels > 2 else 9.0, 2.4 + 3.4 * -(-panels // 4)


def _draw_curves(drawn: Any, analysis: ErrorAnalysis) -> str:
    drawn.get_layout_engine().set(wspace=0.06)
    shown = shown_curves(analysis)
    present = sum(map(bool, analysis.curves["all"]))
    columns = min(4, len(shown) + 1)
    rows = -(-(len(shown) + 1) // columns)
    grid = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for index, axes in enumerate(grid):
        if index > len(shown):
            axes.set_visible(False)
            continue
        curves = {
            area: by_class[shown[index - 1]] if index else mean_precision(by_class)
            for area, by_class in analysis.curves.items()
        }
        name = shortened(analysis.classes[shown[index - 1]], 20) if index else "mean of all classes"
        _draw_areas(axes, curves, name)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        drawn.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    for axes in grid[::columns]:
        axes.set_ylabel("precision")
    for axes in grid[max(0, len(shown) + 1 - columns) : len(shown) + 1]:
        axes.set_xlabel("recall")
        axes.tick_params(labelbottom=True)
    some = f" The {len(shown)} of {present} classes with most objects are shown."
    return (
        "Best precision at each recall or above, IoU ≥ 0.5; beside the names AP50. Sizes by area: "
        "small < 32², medium < 96² pixels.\nOf a size, objects and free detections of other "
        "sizes are ignored, as in COCO; no line: no such object."
        + (some if len(shown) < present else "")
    )


def _draw_areas(axes: Any, curves: dict[str, tuple[float, ...]], name: str) -> None:
    for area in AREAS:
        color, line = _AREA_STYLE[area]
        width = 2.2 if area == "all" else 2.6
        values = curves[area] or np.full(len(RECALLS), np.nan)
        axes.plot(RECALLS, values, line, color=color, linewidth=width, label=area)
    ap50 = f" {np.mean(curves['all']):.2f}" if curves["all"] else ": no objects"
    axes.set_title(f"{label(name)}{ap50}", fontsize=15)
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)


# --- calibration ---------------------------------------------------------------------------------


def _draw_calibration(drawn: Any, analysis: ErrorAnalysis) -> str:
    calibration = analysis.calibration
    shares, numbers = drawn.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    lefts, width = np.arange(BINS) / BINS, 1 / BINS
    precision = np.nan_to_num(calibration.precision)
    edge = {"width": width, "align": "edge", "edgecolor": "white"}
    shares.bar(lefts, precision, color=BLUE, label="true positives", **edge)
    shares.plot([0, 1], [0, 1], "--", color="black", label="share = score")
    shares.plot(
        *(calibration.mean_score, calibration.precision),
        "o",
        color=VERMILION,
        markersize=9,
        markeredgecolor="white",
        label="at the mean score of the bin",
    )
    shares.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="share of true positives")
    shares.legend(loc="upper left", frameon=False)
    error = calibration.expected_error
    text = "no detections" if error != error else f"expected calibration error {error:.3f}"
    shares.set_title(f"Calibration of the scores: {text}", loc="left")
    numbers.bar(lefts, calibration.counts, color="#999999", **edge)
    if any(calibration.counts):
        numbers.set_yscale("log")
        numbers.set_ylim(bottom=0.7)
    numbers.set(xlabel="score", ylabel="detections")
    return (
        "True positive: it found an object of its class at IoU ≥ 0.5 (duplicates are wrong).\n"
        "Expected calibration error: |share - mean score| of a bin, averaged over detections,\n"
        "so mostly over the bins with many. Detections left out of the file are not in it."
    )
