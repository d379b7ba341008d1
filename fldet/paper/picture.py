"""A table of the paper as a picture: its values on the left, those measured here on the right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fldet.paper.report import RowReport, TableReport
from fldet.pictures.figure import COLORS, figure, save


def plot_table(table: TableReport, tier: str, folder: Path) -> list[Path]:
    """Draws a table of the report of a tier into a folder; returns the paths of PNG and SVG."""
    tau = table.agreement.tau
    agreed = "" if tau is None else f"; Kendall's tau {tau:.2f}"
    quantity = "AP [%]" if table.quantity == "AP" else "time per image [ms]"
    title = f"{table.key}, tier {tier}{agreed}"
    return plot_rows(title, quantity, table.rows, folder / f"{tier}_{table.key}")


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
        _draw_ours(halves[-1], rows, quantity)
        halves[0].set_yticks(range(len(rows)), [row.name for row in rows])
        halves[0].set_ylim(len(rows) - 0.5, -0.5)
        drawn.suptitle(title)
        return save(drawn, stem)


def _draw_paper(axes: Any, rows: Sequence[RowReport], quantity: str) -> None:
    places = [place for place, row in enumerate(rows) if row.paper is not None]
    values = [row.paper for row in rows if row.paper is not None]
    axes.plot(values, places, "D", color=COLORS[0], markersize=9)
    for value, place in zip(values, places, strict=True):
        _write(axes, value, place, f"{value:.1f}")
    _set_axes(axes, values, f"paper: {quantity}")


def _draw_ours(axes: Any, rows: Sequence[RowReport], quantity: str) -> None:
    shown: list[float] = []
    for place, row in enumerate(rows):
        ours, diverged = row.ours.values, row.ours.diverged
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
        low, high, mean = min(ours), max(ours), row.ours.mean
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
