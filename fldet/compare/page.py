"""The page of a comparison: one HTML file like the report of a run, and its figures as JSON."""

import math
from pathlib import Path
from shlex import quote
from typing import Any

from fldet.compare.result import Comparison, Contestant, measured
from fldet.files import write_atomically
from fldet.pictures.pages import page_environment, page_style
from fldet.pictures.svg import Line, line_chart
from fldet.results import to_json
from fldet.text import printable

PAGE, FIGURES = "compare.html", "result.json"

_STYLES = 5  # of lines beside the first, in the style sheet


def write_page(result: Comparison, work_dir: Path) -> Path:
    """Writes the page and the figures into a folder; returns the page."""
    write_atomically(work_dir / FIGURES, to_json("compare", result))
    return write_atomically(work_dir / PAGE, render(result))


def render(result: Comparison) -> str:
    """Returns the page as HTML."""
    styles = {one.name: 1 + place % _STYLES for place, one in enumerate(result.contestants)}
    known = measured(result.contestants)
    template = page_environment(Path(__file__).parent).get_template("page.html.j2")
    text = template.render(
        result=result,
        contestants=sorted(result.contestants, key=_rank),
        style=page_style(),
        trade_off=[_trade_off(known, styles)] if known else [],
        curves=_curves(result, styles),
        best=max((one.ap for one in known), default=0.0),
        slowest=max((one.ms for one in known), default=0.0),
        next_commands=[_report_command(one) for one in known],
    )
    return printable(text)


def _rank(one: Contestant) -> tuple[bool, float]:
    """Puts the best first, those without a figure last."""
    return math.isnan(one.ap), -one.ap


def _trade_off(known: list[Contestant], styles: dict[str, int]) -> str:
    """Returns AP over time with the envelope: the best AP within a time."""
    slowest = 1.15 * max(one.ms for one in known)
    steps: list[tuple[float, float]] = []
    for one in sorted((one for one in known if one.on_envelope), key=lambda one: one.ms):
        steps += [(one.ms, steps[-1][1]), (one.ms, one.ap)] if steps else [(one.ms, one.ap)]
    lines = [Line("best within a time", [*steps, (slowest, steps[-1][1])], 0)]
    lines += [
        Line(one.title, [(one.ms, one.ap)], styles[one.name], marked=True, named=True)
        for one in known
    ]
    return line_chart(
        lines,
        title="Accuracy against time",
        x_label="ms an image",
        y_label="AP [%]",
        x_range=(0.0, slowest),
    )


def _curves(result: Comparison, styles: dict[str, int]) -> list[str]:
    """Returns AP over the minutes of training, no chart without a validation."""
    lines = [
        Line(one.title, one.curve, styles[one.name], marked=True)
        for one in result.contestants
        if any(math.isfinite(ap) for _, ap in one.curve)
    ]
    if not lines:
        return []
    last = max(minute for line in lines for minute, _ in line.points)
    chart = line_chart(
        lines,
        title="AP on validation during training",
        x_label="minutes of training",
        y_label="AP [%]",
        x_range=(0.0, last or 1.0),
    )
    return [chart]


def _report_command(one: Contestant) -> dict[str, Any]:
    return {"title": one.title, "command": f"fldet report {quote(str(one.work_dir))}"}
