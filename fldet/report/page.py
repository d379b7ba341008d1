"""The page of a run: one HTML text that needs no other file and no network.

``page.html.j2`` says what stands where, and escapes every text; here is what it shows.
"""

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fldet.analysis.errors.pictures import hex_color, shown_classes, shown_curves
from fldet.analysis.errors.result import ErrorAnalysis
from fldet.analysis.log.summary import summarize_log
from fldet.analysis.loss_cdf.curves import procedure_text
from fldet.report.charts import calibration_charts, loss_charts, precision_charts, training_charts
from fldet.report.content import STATES, Report, gallery_data
from fldet.text import printable

_HERE = Path(__file__).parent


def render(report: Report) -> str:
    """Returns the page as HTML."""
    environment = page_environment()
    template = environment.get_template("page.html.j2")
    shown = _of_run(report) | (_of_errors(report.errors) if report.errors else {})
    return printable(template.render(report=report, errors=report.errors, **shown))


def page_environment(*folders: Path) -> Environment:
    """Returns what renders templates of some folders with ``parts.html.j2`` of this one.

    ``page_style()`` is their style sheet. Texts are escaped; a name that is not given is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_function"] = _json
    environment.filters |= {
        "figure": _figure,
        "fragment": lambda name: quote(name, errors="replace"),
        "percent_of": _percent_of,
    }
    return environment


def page_style() -> str:
    """Returns the style sheet of pages."""
    return _asset("page.css")


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _json(value: Any, **_: Any) -> str:
    """Returns short JSON; a letter that ``printable`` would write otherwise is escaped."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def _figure(value: float | None, digits: int = 3) -> str:
    """Returns a number, a dash for NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _percent_of(value: float | None, largest: float) -> str:
    share = 0 if value is None or math.isnan(value) else max(0.0, value) / (largest or 1)
    return f"{100 * share:.1f}%"


def _of_run(report: Report) -> dict[str, Any]:
    """Returns what the template shows whatever is missing."""
    log, loss_cdf = report.log, report.loss_cdf
    figures = [(one, "mAP" in one.summary) for one in report.figures]
    drawn = {box.state for picture in report.pictures for box in picture.boxes.detections}
    return {
        "style": page_style(),
        "script": _asset("page.js"),
        "state_colors": {state: hex_color(state) for state in STATES if state != "ignored"},
        "metrics": [
            {
                "summary": one.summary,
                "per_class": one.per_class,
                "title": "Pascal VOC" if is_voc else "COCO",
                "column": "AP of VOC" if is_voc else "AP",
            }
            for one, is_voc in figures
        ],
        "last_validation": {n: v.values[-1] for n, v in log.val.items() if n[:1] == "A"}
        if log and "AP" in log.val
        else {},
        "training_charts": training_charts(log) if log else [],
        "not_finite": summarize_log(log).not_finite if log else 0,
        "loss_charts": loss_charts(loss_cdf) if loss_cdf else [],
        "procedure": procedure_text(loss_cdf) if loss_cdf else "",
        "pictures": report.pictures if report.errors else (),
        "states": [state for state in STATES if state != "ignored" or state in drawn],
        "gallery_data": gallery_data(report),
        "ap50": {},
        "objects": {},
    }


def _of_errors(errors: ErrorAnalysis) -> dict[str, Any]:
    """Returns what the template shows of mistakes, curves and classes."""
    matrix = np.array(errors.confusion)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    labels = shown_classes(errors)
    places = [*labels, len(errors.classes)]  # the last is background, or missed
    names = [*(errors.classes[label] for label in labels), "background"]
    legend, precision = precision_charts(errors)
    return {
        "ap50": {
            name: float(np.mean(curve)) if curve else None
            for name, curve in zip(errors.classes, errors.curves["all"], strict=True)
        },
        "objects": dict(zip(errors.classes, matrix.sum(axis=1).tolist(), strict=False)),
        "kinds": [
            {"name": name, "gain": float(np.nan_to_num(100 * kind.ap50_gain)), **vars(kind)}
            for name, kind in errors.kinds.items()
        ],
        "most_confident": max(
            kind.confident for name, kind in errors.kinds.items() if name != "missed"
        ),
        "confusion": [
            (name, [(int(matrix[row, column]), shares[row, column]) for column in places])
            for name, row in zip(names, places, strict=True)
        ],
        "precision_legend": legend,
        "precision_charts": precision,
        "classes_drawn": len(shown_curves(errors)),
        "classes_present": sum(map(bool, errors.curves["all"])),
        "calibration": calibration_charts(errors.calibration),
    }
