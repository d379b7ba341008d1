"""The charts of the page of a run, as SVG text whose labels are escaped."""

import math
from collections.abc import Iterable, Sequence

from fldet.analysis.errors.pictures import shown_curves
from fldet.analysis.errors.result import Calibration, ErrorAnalysis, ap50_of, mean_precision
from fldet.analysis.log.pictures import LOG_SCALE_FROM
from fldet.analysis.log.read import Series, TrainingLog, drawn_losses
from fldet.analysis.loss_cdf.curves import LossCdf
from fldet.evaluation.matching import AREAS, RECALLS
from fldet.pictures.svg import Line, legend, line_chart
from fldet.text import cell

_STYLES = 6  # of lines, in the style sheet


def precision_charts(errors: ErrorAnalysis) -> tuple[str, list[str]]:
    """Returns precision over recall: a legend, and a chart of all classes and of each shown.

    A chart has a line for each size of objects; there is none without objects.
    """
    panels = [("all classes", {area: mean_precision(one) for area, one in errors.curves.items()})]
    panels += [
        (errors.classes[label], {area: one[label] for area, one in errors.curves.items()})
        for label in shown_curves(errors)
    ]
    charts, legends = [], []
    for name, curves in panels:
        lines = [
            _line(area, RECALLS.tolist(), curves[area], style)
            for style, area in enumerate(AREAS)
            if curves[area]
        ]
        if lines:
            title = f"{name}: AP50 {cell(ap50_of([curves['all']]))}"
            charts.append(_unit_chart(lines, title, "recall", "precision", compact=True))
            legends.append(legend(lines))
    return legends[0] if legends else "", charts


def calibration_charts(calibration: Calibration) -> list[str]:
    """Returns a chart of the share of right detections by score, none without detections."""
    pairs = zip(calibration.mean_score, calibration.precision, strict=True)
    points = [(score, precision) for score, precision in pairs if math.isfinite(score)]
    lines = [
        Line("share of right detections", points, 1, marked=True),
        Line("score = share", [(0.0, 0.0), (1.0, 1.0)], 0),
    ]
    title = f"Calibration: expected error {cell(calibration.expected_error)}"
    return [_unit_chart(lines, title, "score", "share right")] if points else []


def training_charts(log: TrainingLog) -> list[str]:
    """Returns losses, AP and learning rate over the iterations, those that were logged."""
    losses = [
        _series(name, one, style)
        for style, (name, one) in enumerate(drawn_losses(log.train).items())
    ]
    styles = {line.name: line.style for line in losses}
    losses += [
        _series(f"{name} on validation", one, styles.get(name, 0), marked=True)
        for name, one in drawn_losses(log.val).items()
    ]
    metrics = [name for name in ("AP", "AP50", "AP75", "mAP", "mAP_11") if name in log.val]
    precisions = [_series(name, log.val[name], i, marked=True) for i, name in enumerate(metrics)]
    rates = [_series("learning rate", log.train["lr"], 0)] if "lr" in log.train else []
    return [
        *_over_iterations(losses, "Loss", "loss"),
        *_over_iterations(precisions, "AP on validation", "AP"),
        *_over_iterations(rates, "Learning rate", "rate", compact=True),
    ]


def loss_charts(found: LossCdf) -> list[str]:
    """Returns the cumulative loss of positives and of negatives, a line for each gamma."""
    return [
        _unit_chart(
            [
                _line(f"gamma {curve.gamma:g}", curve.fraction, curve.loss, style)
                for style, curve in enumerate(curves)
            ],
            f"Cumulative loss of {group}",
            f"fraction of {group}",
            "share of the loss",
        )
        for group, curves in (("positives", found.positives), ("negatives", found.negatives))
    ]


def _series(name: str, series: Series, style: int, *, marked: bool = False) -> Line:
    return _line(name, map(float, series.iterations), series.values, style, marked=marked)


def _line(
    name: str, xs: Iterable[float], ys: Iterable[float], style: int, *, marked: bool = False
) -> Line:
    return Line(name, list(zip(xs, ys, strict=True)), style % _STYLES, marked)


def _unit_chart(
    lines: Sequence[Line], title: str, x_label: str, y_label: str, *, compact: bool = False
) -> str:
    """Returns a chart whose axes go from 0 to 1."""
    return line_chart(
        lines,
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        compact=compact,
    )


def _over_iterations(
    lines: Sequence[Line], title: str, label: str, *, compact: bool = False
) -> list[str]:
    """Returns one chart, none without a finite value."""
    values = [y for line in lines for _, y in line.points if math.isfinite(y)]
    if not values:
        return []
    steep = label == "loss" and min(values) > 0 and max(values) > LOG_SCALE_FROM * min(values)
    chart = line_chart(
        lines,
        title=title,
        x_label="iterations",
        x_range=(0.0, max(x for line in lines for x, _ in line.points)),
        y_label=f"{label}{', logarithmic' if steep else ''}",
        logarithmic=steep,
        compact=compact,
    )
    return [chart]
