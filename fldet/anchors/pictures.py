"""One figure of how anchors cover boxes, as PNG and SVG."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fldet.anchors.cover import AssignRule
from fldet.anchors.report import BIN, AnchorReport, Group, scheme_text
from fldet.pictures.figure import figure, label, save

_BLUE, _ORANGE, _VERMILION = "#0072B2", "#E69F00", "#D55E00"  # Okabe and Ito
_STYLE = {
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.08,
    "svg.fonttype": "none",
}


def plot(report: AnchorReport, path: Path) -> list[Path]:
    """Draws a report; returns the files written, ``path`` with the endings .png and .svg."""
    from matplotlib import rc_context

    with rc_context(_STYLE), figure(14, 10.5) as drawn, rc_context({"axes.grid": False}):
        grid = drawn.add_gridspec(4, 2, height_ratios=(1, 1.1, 0.1, 0.001))
        drawn.suptitle(
            f"{label(str(report.about.get('config')))}, {label(str(report.about.get('split')))}: "
            f"{100 * report.overall.below_positive:.1f} % of {report.boxes} boxes are poorly "
            f"covered by {report.scheme.per_location} anchors per location"
        )
        _plot_best(drawn.add_subplot(grid[0, 0]), report)
        _plot_levels(drawn.add_subplot(grid[0, 1]), report)
        by_size, by_ratio = (drawn.add_subplot(grid[1, column]) for column in range(2))
        _plot_groups(by_size, "size in the file (COCO: 32 and 96 pixels)", report.by_size)
        _plot_groups(by_ratio, "height / width at the network", report.by_ratio)
        _legend(drawn.add_subplot(grid[2, :]), report.rule)
        foot = drawn.add_subplot(grid[3, :])
        foot.axis("off")
        text = textwrap.fill(label(small_print(report), most=2000), 142)
        foot.text(0, 0, text, transform=foot.transAxes, va="top", fontsize=12, color="#333333")
        return save(drawn, path.with_suffix(""))


def _legend(axes: Any, rule: AssignRule) -> None:
    """Explains the three colours."""
    from matplotlib.patches import Patch

    low, high = rule.neg_iou_thr, rule.pos_iou_thr
    names = [f"best IoU ≥ {high:g}: covered", f"{low:g} to {high:g}", f"< {low:g}"]
    patches = [Patch(color=color) for color in (_BLUE, _ORANGE, _VERMILION)]
    axes.axis("off")
    axes.legend(patches, names, ncols=3, loc="center", frameon=False, fontsize=14)


def _plot_best(axes: Any, report: AnchorReport) -> None:
    """Draws the histogram of the best IoU with the two thresholds."""
    low, high = report.rule.neg_iou_thr, report.rule.pos_iou_thr
    middles = (np.arange(len(report.histogram)) + 0.5) * BIN
    colors = np.select([middles < low, middles < high], [_VERMILION, _ORANGE], _BLUE)
    axes.bar(middles, report.histogram, width=BIN, color=colors)
    axes.set(xlabel="IoU of a box with its best anchor", ylabel="boxes", xlim=(0, 1))
    for place, name, side in ((low, "background", "right"), (high, "positive", "left")):
        axes.axvline(place, color="black", linewidth=1.5, linestyle="--")
        text = f" {name} " + (f"< {place:g} " if side == "right" else f"≥ {place:g} ")
        place_in = axes.get_xaxis_transform()
        axes.text(place, 1.0, text, ha=side, va="bottom", transform=place_in, fontsize=14)


def _plot_levels(axes: Any, report: AnchorReport) -> None:
    """Draws the mean number of positive anchors of an image on each level."""
    means, scheme = report.positives_per_level, report.scheme
    axes.bar(range(len(means)), means, color=_BLUE, width=0.7)
    names = [f"{s}\n{size:g}" for s, size in zip(scheme.strides, scheme.sizes, strict=True)]
    axes.set_xticks(range(len(means)), names)
    axes.set_ylim(0, max([*means, 1]) * 1.15)
    axes.set(xlabel="level: stride, and below its smallest size [pixels]")
    axes.set_ylabel("positive anchors\nper image, mean")
    for row, mean in enumerate(means):
        axes.text(row, mean, f"{mean:.1f}", ha="center", va="bottom", fontsize=14)


def _plot_groups(axes: Any, title: str, groups: Sequence[Group]) -> None:
    """Draws the shares of covered and of poorly covered boxes of each kind."""
    for row, group in enumerate(groups):
        covered, background = 1 - group.below_positive, group.below_background
        between = group.below_positive - background
        left = 0.0
        parts = (covered, between, background) if group.boxes else (0.0, 0.0, 0.0)
        for part, color in zip(parts, (_BLUE, _ORANGE, _VERMILION), strict=True):
            axes.barh(row, 100 * part, left=100 * left, color=color, height=0.75)
            left += part
        words = f"{100 * group.below_positive:.1f} % poor" if group.boxes else ""
        axes.text(101, row, words, va="center", fontsize=14)
    axes.set_yticks(range(len(groups)), [f"{one.name}\n({one.boxes})" for one in groups])
    axes.tick_params(axis="y", labelsize=13)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set(xlim=(0, 100), xlabel="boxes [%]", title=title)
    axes.title.set_fontsize(15)


def small_print(report: AnchorReport) -> str:
    """Returns how the numbers came about, for the foot of the figure."""
    about, rule = report.about, report.rule
    best = (
        "or the best of a box, ties included" if rule.match_low_quality else "(no low-quality rule)"
    )
    text = (
        f"{about.get('images')}; crowd regions left out. Anchors: {scheme_text(report.scheme)}. "
        f"Boxes are in pixels of the network's input (resizing: {about.get('resizing')}; not "
        f"applied: {about.get('left_out') or 'nothing'}), on the grid of the padded image. Best: "
        f"over all anchors, inside the image or not. Poor: no anchor with IoU ≥ "
        f"{rule.pos_iou_thr:g}. Positive: IoU ≥ {rule.pos_iou_thr:g} with some box, {best}; an "
        f"anchor counts once. Size: width x height of the box in the file. In brackets: boxes."
    )
    return text[:1].upper() + text[1:]
