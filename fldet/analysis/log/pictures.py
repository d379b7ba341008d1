"""One figure of training runs, drawn over each other: losses, learning rate, AP and speed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fldet.analysis.log.read import MOST_DRAWN, Series, TrainingLog, drawn_losses, loss_parts
from fldet.analysis.log.summary import not_finite, shares, smoothed
from fldet.pictures.figure import COLORS, DASHES, figure, label, save

LOG_SCALE_FROM = 50  # largest over smallest loss from which the axis is logarithmic
_LONGEST_NAME = 30  # of a loss in the legend
RUN_COLORS = (*COLORS[1:], COLORS[0])

_PANELS = [["losses", "ap"], ["losses", "speed"], ["rate", "waiting"]]


def plot_logs(runs: Sequence[TrainingLog], stem: Path, *, smooth: int = 1) -> list[Path]:
    """Draws runs over each other and returns the paths of the figure, PNG and SVG.

    Each run has a colour, the parts of a loss have dashes. A loss is averaged over ``smooth``
    logged points; above 1 the points lie pale behind.
    """
    with figure(15, 11) as drawn:
        panels = drawn.subplot_mosaic(_PANELS, width_ratios=(1.2, 1), sharex=True)
        _draw_losses(panels["losses"], runs, smooth)
        _draw_rates(panels["rate"], runs)
        _draw_ap(panels["ap"], runs)
        _draw_speed(panels["speed"], runs)
        _draw_waiting(panels["waiting"], runs)
        panels["rate"].set_xlim(left=0)
        panels["rate"].xaxis.set_major_formatter("{x:,.0f}")
        panels["rate"].xaxis.get_major_locator().set_params(nbins=6)
        for name in ("rate", "waiting"):
            panels[name].set_xlabel("iterations")
        _name_runs(drawn, runs)
        return save(drawn, stem)


def _name_runs(drawn: Any, runs: Sequence[TrainingLog]) -> None:
    if len(runs) == 1:
        drawn.suptitle(label(runs[0].name))
        return
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linewidth=6, label=label(run.name))
        for run, color in zip(runs, RUN_COLORS, strict=False)
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 3))


def _draw_losses(axes: Any, runs: Sequence[TrainingLog], smooth: int) -> None:
    names = list(dict.fromkeys(name for run in runs for name in drawn_losses(run.train)))
    styles = dict(zip(names[:MOST_DRAWN], DASHES * MOST_DRAWN, strict=False))
    for run, color in zip(runs, RUN_COLORS, strict=False):
        for name, one in drawn_losses(run.train).items():
            if name not in styles:
                continue
            style = {"color": color, "linestyle": styles[name]}
            if smooth > 1:
                axes.plot(one.iterations, _drawable(one.values), color=color, alpha=0.25, lw=1.5)
            axes.plot(one.iterations, smoothed(one.values, smooth), **style, **_lone(one))
            _mark(axes, not_finite(one), color)
        for name, one in drawn_losses(run.val).items():
            style = {"color": color, "linestyle": styles.get(name, "solid")}
            axes.plot(one.iterations, _drawable(one.values), **style, marker="D", ms=8, lw=1.2)
    values = [v for run in runs for scalars in (run.train, run.val) for v in _positive(scalars)]
    if values and max(values) > LOG_SCALE_FROM * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    averaged = f", mean of the last {smooth} logged points" if smooth > 1 else ""
    axes.set_ylabel(f"loss{averaged}")
    _loss_legend(axes, runs, styles)


def _loss_legend(axes: Any, runs: Sequence[TrainingLog], styles: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"color": "0.3"}
    handles = [
        Line2D([], [], ls=style, label=label(_cut(name)), **grey) for name, style in styles.items()
    ]
    if any(loss_parts(run.val) for run in runs):
        handles.append(Line2D([], [], marker="D", ms=8, lw=1.2, label="on validation", **grey))
    if left_out := {name for run in runs for name in loss_parts(run.train)} - styles.keys():
        handles.append(Line2D([], [], ls="", label=f"{len(left_out)} more, not drawn"))
    if any(not_finite(one) for run in runs for one in drawn_losses(run.train).values()):
        handles.append(Line2D([], [], ls="", **_CROSS, label="NaN or infinite", **grey))
    axes.legend(handles=handles, loc="upper right", handlelength=3)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


_CROSS: dict[str, Any] = {"marker": "x", "ms": 11, "mew": 3}


def _mark(axes: Any, iterations: Sequence[int], color: str) -> None:
    """Draws crosses at the lower edge, where a value cannot be drawn."""
    if not iterations:  # the empty line would count for the layout
        return
    heights = [0.02] * len(iterations)
    transform = axes.get_xaxis_transform()
    axes.plot(iterations, heights, ls="", color=color, transform=transform, clip_on=False, **_CROSS)


def _draw_rates(axes: Any, runs: Sequence[TrainingLog]) -> None:
    for run, color in zip(runs, RUN_COLORS, strict=False):
        rate = run.train.get("lr", Series())
        axes.plot(rate.iterations, _drawable(rate.values), color=color, **_lone(rate))
    axes.set_ylim(bottom=0)
    axes.set(ylabel="learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))


def _draw_ap(axes: Any, runs: Sequence[TrainingLog]) -> None:
    from matplotlib.lines import Line2D

    styles = dict(zip(("AP", "AP50", "AP75"), DASHES, strict=False))
    for run, color in zip(runs, RUN_COLORS, strict=False):
        for name, style in styles.items():
            one = run.val.get(name, Series())
            axes.plot(
                one.iterations, _drawable(one.values), color=color, ls=style, marker="o", ms=6
            )
            _mark(axes, not_finite(one), color)
    axes.set(ylabel="AP on validation", ylim=(0, None))
    if any("AP" in run.val for run in runs):
        axes.set_ylim(0, 1.25 * max(0.05, axes.get_ylim()[1]))  # room for the legend
        handles = [Line2D([], [], ls=ls, color="0.3", label=name) for name, ls in styles.items()]
        axes.legend(handles=handles, loc="upper left", handlelength=3, ncols=3)
    else:
        axes.text(0.5, 0.5, "no validation", ha="center", transform=axes.transAxes)


def _draw_speed(axes: Any, runs: Sequence[TrainingLog]) -> None:
    for run, color in zip(runs, RUN_COLORS, strict=False):
        times = run.train.get("time", Series())
        rates = [1 / value if value > 0 else math.nan for value in times.values]
        axes.plot(times.iterations, _drawable(rates), color=color, **_lone(times))
    axes.set(ylabel="iterations / s", ylim=(0, None))


def _draw_waiting(axes: Any, runs: Sequence[TrainingLog]) -> None:
    for run, color in zip(runs, RUN_COLORS, strict=False):
        part = shares(run.train.get("data_time", Series()), run.train.get("time", Series()))
        percent = [100 * value for value in part.values]
        axes.plot(part.iterations, _drawable(percent), color=color, **_lone(part))
    axes.set(ylabel="waiting for data [%]")
    axes.set_ylim(0, min(100, max(10, axes.get_ylim()[1])))


def _lone(series: Series) -> dict[str, Any]:
    """Returns a marker for a series of one point, of which no line is seen."""
    return {"marker": "o"} if len(series.values) == 1 else {}


def _drawable(values: Sequence[float]) -> list[float]:
    return np.where(np.isfinite(values), values, np.nan).tolist()


def _positive(scalars: Mapping[str, Series]) -> Iterator[float]:
    for one in drawn_losses(scalars).values():
        yield from (value for value in one.values if math.isfinite(value) and value > 0)
