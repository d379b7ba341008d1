"""The page of a run: one HTML text that needs no other file and no network.

``page.html.j2`` says what stands where, and escapes every text; here is what it shows.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fldet.analysis.errors.pictures import hex_color, shown_classes, shown_curves
from fldet.analysis.errors.result import ErrorAnalysis
from fldet.analysis.log.summary import summarize_log
from fldet.analysis.loss_cdf.curves import procedure_text
from fldet.pictures.pages import page_environment, page_style
from fldet.report.charts import calibration_charts, loss_charts, precision_charts, training_charts
from fldet.report.content import STATES, Report, gallery_data
from fldet.text import printable

_HERE = Path(__file__).parent


def render(report: Report) -> str:
    """Returns the page as HTML."""
    template = page_environment(_HERE).get_template("page.html.j2")
    shown = _of_run(report) | (_of_errors(report.errors) if report.errors else {})
    return printable(template.render(report=report, errors=report.errors, **shown))


def _of_run(report: Report) -> dict[str, Any]:
    """Returns what the template shows whatever is missing."""
    log, loss_cdf = report.log, report.loss_cdf
    figures = [(one, "mAP" in one.summary) for one in report.figures]
    drawn = {box.state for picture in report.pictures for box in picture.boxes.detections}
    return {
        "style": page_style(),
        "script": (_HERE / "page.js").read_text(encoding="utf-8"),
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
