"""A table as a picture: the paper's values on the left, those measured here on the right.

Two tables of ours have pictures of their own: AP over the weight of the box loss, and AP of each
class.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fldet.paper.report import RowReport, TableReport
from fldet.paper.statements import Measured
from fldet.pictures.figure import COLORS, DASHES, figure, label, save, small_print

_TIMES = re.compile(r"(.+) x([0-9.]+)")  # a loss, and a factor of its box loss


def plot_table(table: TableReport, tier: str, folder: Path) -> list[Path]:
    """Draws a table of the report of a tier into a folder; returns the paths of PNG and SVG."""
    stem, title = folder / f"{tier}_{table.key}", f"{table.key}, tier {tier}"
    if table.per_class:
        return plot_classes(title, table, stem)
    if curves := _curves(table.rows):
        return plot_factors(title, curves, stem, table.title)
    tau = table.agreement.tau
    agreed = "" if tau is None else f"; Kendall's tau {tau:.2f}"
    quantity = "AP [%]" if table.quantity == "AP" else "time per image [ms]"
    return plot_rows(f"{title}{agreed}", quantity, table.rows, stem)


def plot_rows(title: str, quantity: str, rows: Sequence[RowReport], stem: Path) -> list[Path]:
    """Draws a table, with ``quantity`` and its unit, and returns the paths of PNG and SVG.

    Both halves have a scale of their own, as the data differ: the order of the rows is what can be
    compared. A dot is a seed, a bar goes from the lowest to the highest, a line marks the mean.
    """
    has_paper = any(row.paper is not None for row in rows)
    with figure(11.5 if has_paper else 8.5, 1.6 + 0.5 * max(4, len(rows))) as drawn:
        halves = drawn.subplots(1, 2 if has_paper else 1, sharey=True, squeeze=False)[0]
        if has_paper:
            _draw_paper(halves[0], rows, quantity)
        _draw_ours(halves[-1], [row.ours for row in rows], quantity)
        halves[0].set_yticks(range(len(rows)), [row.name for row in rows])
        halves[0].set_ylim(len(rows) - 0.5, -0.5)
        drawn.suptitle(title)
        return save(drawn, stem)


def plot_classes(title: str, table: TableReport, stem: Path) -> list[Path]:
    """Draws the AP of each class by row, a part for each class; returns the paths of PNG and SVG.

    All parts are equally wide in AP. A dashed line leads from the mean of a row of another table
    through those that are to be compared with it.
    """
    rows, classes = list(table.per_class), list(next(iter(table.per_class.values())))
    own = {row.name for row in table.rows}
    starts = [place for place, row in enumerate(rows) if row not in own]
    with figure(3 + 4.2 * len(classes), 1.6 + 0.5 * max(4, len(rows))) as drawn:
        parts = drawn.subplots(1, len(classes), sharey=True, squeeze=False)[0]
        for axes, name in zip(parts, classes, strict=True):
            measured = [table.per_class[row][name] for row in rows]
            _draw_ours(axes, measured, f"AP of {label(name, 40)} [%]")
            for start, end in pairwise([*starts, len(rows)]):
                if measured[start].values:
                    among = [measured[start].mean] * 2
                    axes.plot(among, [start, end - 0.6], color="0.4", linestyle=DASHES[1], zorder=0)
        width = max(high - low for low, high in (axes.get_xlim() for axes in parts))
        for axes in parts:
            middle = sum(axes.get_xlim()) / 2
            axes.set_xlim(middle - width / 2, middle + width / 2)
        parts[0].set_yticks(range(len(rows)), rows)
        parts[0].set_ylim(len(rows) - 0.5, -0.5)
        drawn.suptitle(title)
        small_print(drawn, table.title)
        return save(drawn, stem)


def _curves(rows: Sequence[RowReport]) -> dict[str, dict[float, Measured]]:
    """Returns what rows gave by loss and factor; with 1 it is the row of another table beside them.

    There are none if no row has a factor in its name.
    """
    curves: dict[str, dict[float, Measured]] = {}
    for row in rows if any(_TIMES.fullmatch(row.name) for row in rows) else ():
        if row.ours.values:
            found = _TIMES.fullmatch(row.name)
            name, factor = (found[1], float(found[2])) if found else (row.name, 1.0)
            beside = [one for one in row.beside.values() if one.values]
            curves.setdefault(name, dict(zip([1.0], beside, strict=False)))[factor] = row.ours
    return curves


def plot_factors(
    title: str, curves: Mapping[str, Mapping[float, Measured]], stem: Path, note: str
) -> list[Path]:
    """Draws AP over the factor of the box loss, a curve for each loss; returns PNG and SVG.

    ``note`` is written below it.
    A curve goes through the means, a dot is a seed, a bar goes from the lowest to the highest.
    """
    with figure(9, 6) as drawn:
        axes = drawn.add_subplot()
        axes.set_xscale("log", base=2)
        for index, (name, points) in enumerate(curves.items()):
            color, aside = COLORS[1 + index], 1.04 ** (index - (len(curves) - 1) / 2)
            factors = sorted(points)
            means = [points[factor].mean for factor in factors]
            places = [factor * aside for factor in factors]
            style = {"color": color, "linestyle": DASHES[index % len(DASHES)]}
            axes.plot(places, means, marker="D", markersize=8, label=label(name), **style)
            for place, factor in zip(places, factors, strict=True):
                values = points[factor].values
                axes.plot([place] * 2, [min(values), max(values)], color=color, alpha=0.35, lw=8)
                axes.plot([place] * len(values), values, "o", color=color, markersize=5)
        ticks = sorted({factor for points in curves.values() for factor in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="weight of the box loss, times that of the table", ylabel="AP [%]")
        axes.legend(loc="best", handlelength=3)
        drawn.suptitle(title)
        small_print(drawn, note)
        return save(drawn, stem)


def _draw_paper(axes: Any, rows: Sequence[RowReport], quantity: str) -> None:
    places = [place for place, row in enumerate(rows) if row.paper is not None]
    values = [row.paper for row in rows if row.paper is not None]
    axes.plot(values, places, "D", color=COLORS[0], markersize=9)
    for value, place in zip(values, places, strict=True):
        _write(axes, value, place, f"{value:.1f}")
    _set_axes(axes, values, f"paper: {quantity}")


def _draw_ours(axes: Any, rows: Sequence[Measured], quantity: str) -> None:
    shown: list[float] = []
    for place, row in enumerate(rows):
        ours, diverged = row.values, row.diverged
        if not ours:
            axes.text(
                0.5,
                place,
                "diverged" if diverged else "not run",
                transform=axes.get_yaxis_transform(),
                ha="center",
                va="center",
                color="0.4",
            )
            continue
        low, high, mean = min(ours), max(ours), row.mean
        shown += ours
        axes.plot([low, high], [place, place], color=COLORS[1], alpha=0.35, linewidth=9)
        axes.plot(ours, [place] * len(ours), "o", color=COLORS[1], markersize=6)
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=COLORS[2])
        _write(axes, high, place, f"{mean:.1f}" + (f", {diverged} diverged" if diverged else ""))
    _set_axes(axes, shown, f"here: {quantity}")


def _write(axes: Any, value: float, place: int, text: str) -> None:
    axes.annotate(
        text,
        (value, place),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        fontsize=13,
    )


def _set_axes(axes: Any, values: Sequence[float], label: str) -> None:
    """Leaves room for the numbers on the right."""
    if values:
        width = max(max(values) - min(values), 0.02 * max(values), 0.1)
        axes.set_xlim(min(values) - 0.08 * width, max(values) + 0.35 * width)
    axes.set_xlabel(label)
