"""The page of a run: one HTML text that needs no other file and no network."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from fldet.analysis.errors.matching import AREAS, RECALLS
from fldet.analysis.errors.pictures import hex_color, shown_classes, shown_curves
from fldet.analysis.errors.result import ErrorAnalysis, ap50_of, mean_precision
from fldet.analysis.log import Series, TrainingLog, loss_parts
from fldet.analysis.log import compute as summarize
from fldet.analysis.loss_cdf.curves import Curve, LossCdf, procedure_text
from fldet.pictures.svg import Line, legend, line_chart
from fldet.report.content import STATES, Report, as_data_uri, gallery_data
from fldet.text import printable

_HERE = Path(__file__).parent
# The browser itself refuses everything that is not in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_KINDS = {  # of mistakes, in words
    "classification": "right place, another class",
    "localisation": "right class, IoU between 0.1 and 0.5",
    "both": "another class, and IoU between 0.1 and 0.5",
    "duplicate": "the object was found already, by a better score",
    "background": "nothing there",
    "missed": "an object that no detection found or points to",
}


def render(report: Report) -> str:
    """Returns the page as HTML."""
    errors = report.errors
    sections = [
        ("figures", "Figures", _figures(report)),
        ("mistakes", "Mistakes", _mistakes(errors) if errors else ""),
        ("curves", "Precision and recall", _curves(errors) if errors else ""),
        ("training", "Training", _training(report.log) if report.log else ""),
        ("loss", "Loss of easy and hard examples", _loss_cdf(report.loss_cdf)),
        ("run", "The run", _run(report)),
        ("gallery", "Images", _gallery(report)),
    ]
    shown = [one for one in sections if one[2]]
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in shown)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(title)}</h2>{content}</section>'
        for name, title, content in shown
    )
    return printable(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(report.title)} · fldet report</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{_asset('page.css')}{_state_colors()}</style>\n</head>\n<body>\n"
        f'<header><p class="kicker">fldet report</p><h1>{escape(report.title)}</h1>'
        f"{_gaps(report.gaps)}<nav>{links}</nav></header>\n<main>{body}</main>\n"
        f"{_script(report)}</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _state_colors() -> str:
    return "".join(
        f".k-{state}{{--kind:{hex_color(state)}}}\n" for state in STATES if state != "ignored"
    )


def _script(report: Report) -> str:
    """Returns the data of the gallery and its script; nothing in the data can end the element."""
    if not report.pictures:
        return ""
    data = json.dumps(gallery_data(report), separators=(",", ":"))
    for letter in "<>&\x7f":
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    return (
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>\n{_asset('page.js')}</script>\n"
    )


def _gaps(gaps: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(one)}</li>" for one in gaps)
    return f'<ul class="gaps" aria-label="What is missing">{items}</ul>' if items else ""


# --- building blocks -----------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, name: str = "") -> str:
    """Returns a table; cells are HTML, the first of a row is its heading."""
    heads = "".join(f'<th scope="col">{one}</th>' for one in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(name)}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _figure(value: float | None, digits: int = 3) -> str:
    """Returns a number, a dash for NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _bar(value: float | None, largest: float, text: str, kind: str = "") -> str:
    width = 0 if value is None or math.isnan(value) else 100 * max(0.0, value) / (largest or 1)
    return (
        f'<span class="bar {kind}"><i style="width:{width:.1f}%"></i></span>'
        f'<span class="number">{text}</span>'
    )


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _dot(state: str) -> str:
    return f'<i class="dot k-{state}" aria-hidden="true"></i>'


# --- figures -------------------------------------------------------------------------------------


def _figures(report: Report) -> str:
    parts = []
    for one in report.figures:
        name = "Pascal VOC" if "mAP" in one["summary"] else "COCO"
        parts += [f"<h3>{name}</h3>" if len(report.figures) > 1 else "", _tiles(one["summary"])]
    if report.figures:
        parts.append(_per_class(report))
    elif report.log and "AP" in report.log.val:
        last = {name: one.values[-1] for name, one in report.log.val.items() if name[:1] == "A"}
        parts += [_tiles(last), _note("Figures of the last validation of the training.")]
    return "".join(parts)


def _tiles(summary: Mapping[str, float | None]) -> str:
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_figure(value)}</dd></div>"
        for name, value in summary.items()
    )
    return f'<dl class="tiles">{tiles}</dl>'


def _per_class(report: Report) -> str:
    """Returns a table of the classes: objects, AP of each metric, AP50."""
    errors = report.errors
    columns = [
        ("AP of VOC" if "mAP" in one["summary"] else "AP", one["per_class"])
        for one in report.figures
    ]
    ap50 = {}
    objects: dict[str, int] = {}
    if errors:
        by_class = zip(errors.classes, errors.curves["all"], errors.confusion, strict=False)
        for name, curve, row in by_class:
            ap50[name] = float(np.mean(curve)) if curve else None
            objects[name] = sum(row)
    rows = []
    for name in columns[0][1]:
        cells = [escape(name)]
        if report.pictures:
            cells = [f'<a href="#class={quote(name, errors="replace")}">{escape(name)}</a>']
        if errors:
            cells.append(f"{objects.get(name, 0):,}")
        values = [of.get(name) for _, of in columns] + ([ap50.get(name)] if errors else [])
        rows.append([*cells, *(_bar(value, 1, _figure(value)) for value in values)])
    head = ["class", *(["objects"] if errors else []), *(escape(name) for name, _ in columns)]
    return _table([*head, *(["AP50"] if errors else [])], rows, name="Figures of each class")


# --- mistakes ------------------------------------------------------------------------------------


def _mistakes(errors: ErrorAnalysis) -> str:
    gains = {name: np.nan_to_num(100 * kind.ap50_gain) for name, kind in errors.kinds.items()}
    most = max(kind.confident for name, kind in errors.kinds.items() if name != "missed")
    rows = [
        (
            f'{_dot(name)}<a href="#kind={name}">{name}</a><small>{_KINDS[name]}</small>',
            _bar(gains[name], max(gains.values()), f"{gains[name]:.1f}", f"k-{name}"),
            ""
            if name == "missed"
            else _bar(kind.confident, most, f"{kind.confident:,}", f"k-{name}"),
            f"{kind.count:,}",
        )
        for name, kind in errors.kinds.items()
    ]
    head = ("kind", "AP50 gained", f"score ≥ {errors.score_thr:g}", "all scores")
    ap50 = _figure(None if math.isnan(errors.ap50) else 100 * errors.ap50, 1)
    return (
        f"<h3>What each kind costs</h3>{_table(head, rows, name='Kinds of mistakes')}"
        + _note(
            f"AP50 is {ap50} of 100. Gained: how much it would rise if this kind alone were "
            "repaired; the gains do not add up. Kinds after TIDE (Bolya et al., ECCV 2020); right "
            "from IoU 0.5 on."
        )
        + _confusion(errors)
    )


def _confusion(errors: ErrorAnalysis) -> str:
    shown = shown_classes(errors)
    whole = np.array(errors.confusion)
    places = [*shown, len(errors.classes)]
    names = [*(errors.classes[label] for label in shown), "background"]
    rows = [
        [
            escape(name),
            *(_shaded(int(whole[row, column]), int(whole[row].sum())) for column in places),
        ]
        for name, row in zip(names, places, strict=True)
    ]
    head = ["true, predicted →", *map(escape, names[:-1]), "missed"]
    table = _table(head, rows, name="Confusion matrix").replace("<table>", '<table class="matrix">')
    number = len(errors.classes)
    some = f" The {len(shown)} of {number} classes with most mistakes are shown."
    return f"<h3>Confusions at score ≥ {errors.score_thr:g}</h3>{table}" + _note(
        "Counts, shaded by their share of the row. Row background: detections on no object, "
        "misplaced boxes and duplicates too. Column missed: objects without a detection."
        + (some if len(shown) < number else "")
    )


def _shaded(count: int, of: int) -> str:
    share = count / of if of else 0.0
    kind = "dark" if share > 0.8 else ""
    return f'<span class="cell {kind}" style="--share:{share:.2f}">{count or ""}</span>'


# --- curves --------------------------------------------------------------------------------------


def _curves(errors: ErrorAnalysis) -> str:
    shown = shown_curves(errors)
    panels = [("all classes", {a: mean_precision(c) for a, c in errors.curves.items()})]
    panels += [
        (errors.classes[label], {area: c[label] for area, c in errors.curves.items()})
        for label in shown
    ]
    charts: list[str] = []
    lines: list[Line] = []
    for name, curves in panels:
        drawn = [
            Line(area, list(zip(RECALLS.tolist(), curves[area], strict=True)), style)
            for style, area in enumerate(AREAS)
            if curves[area]
        ]
        lines = lines or drawn
        ap50 = ap50_of([curves["all"]])
        title = f"{name}: AP50 {_figure(ap50)}"
        if drawn:
            charts.append(_shares(drawn, title, "recall", "precision", compact=True))
    if not charts:
        return ""
    present = sum(map(bool, errors.curves["all"]))
    some = f" The {len(shown)} of {present} classes with most objects."
    return (
        f'{legend(lines)}<div class="charts small">{"".join(charts)}</div>'
        + _note(
            "Best precision at each recall or above, IoU ≥ 0.5. Sizes by area: small < 32², "
            "medium < 96² pixels." + (some if len(shown) < present else "")
        )
        + _calibration(errors)
    )


def _calibration(errors: ErrorAnalysis) -> str:
    calibration = errors.calibration
    points = [
        (score, precision)
        for score, precision in zip(calibration.mean_score, calibration.precision, strict=True)
        if math.isfinite(score)
    ]
    if not points:
        return ""
    lines = [
        Line("share of right detections", points, 1, marked=True),
        Line("score = share", [(0.0, 0.0), (1.0, 1.0)], 0),
    ]
    title = f"Calibration: expected error {_figure(calibration.expected_error)}"
    chart = _shares(lines, title, "score", "share right")
    return f'<div class="charts">{chart}</div>'


def _shares(
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


# --- training ------------------------------------------------------------------------------------


def _training(log: TrainingLog) -> str:
    losses = [
        _line(name, one, style) for style, (name, one) in enumerate(loss_parts(log.train).items())
    ]
    styles = {line.name: line.style for line in losses}
    losses += [
        _line(f"{name} on validation", one, styles.get(name, 0), marked=True)
        for name, one in loss_parts(log.val).items()
    ]
    rates = [_line("learning rate", log.train["lr"], 0)] if "lr" in log.train else []
    names = [name for name in ("AP", "AP50", "AP75", "mAP", "mAP_11") if name in log.val]
    aps = [_line(name, log.val[name], style, marked=True) for style, name in enumerate(names)]
    charts = [
        _chart(losses, "Loss", "loss"),
        _chart(aps, "AP on validation", "AP"),
        _chart(rates, "Learning rate", "rate", compact=True),
    ]
    number = summarize(log).not_finite
    bad = f"Logged points with a loss that is NaN or infinite: {number}." if number else ""
    return f'<div class="charts">{"".join(charts)}</div>{_note(bad) if bad else ""}'


def _line(name: str, series: Series, style: int, *, marked: bool = False) -> Line:
    points = list(zip(map(float, series.iterations), series.values, strict=True))
    return Line(name, points, style % 6, marked)


def _chart(lines: Sequence[Line], title: str, label: str, *, compact: bool = False) -> str:
    values = [y for line in lines for _, y in line.points if math.isfinite(y)]
    if not values:
        return ""
    positive = [y for y in values if y > 0]
    steep = label == "loss" and len(positive) == len(values) and max(values) > 50 * min(values)
    return line_chart(
        lines,
        title=title,
        x_label="iterations",
        x_range=(0.0, max(x for line in lines for x, _ in line.points)),
        y_label=f"{label}{', logarithmic' if steep else ''}",
        logarithmic=steep,
        compact=compact,
    )


def _loss_cdf(found: LossCdf | None) -> str:
    if found is None:
        return ""
    groups = (("positives", found.positives), ("negatives", found.negatives))
    charts = "".join(
        _shares(
            [_cumulative(curve, style) for style, curve in enumerate(curves)],
            f"Cumulative loss of {name}",
            f"fraction of {name}",
            "share of the loss",
        )
        for name, curves in groups
    )
    head = ("gamma", "positives, hardest 20 %", "negatives, hardest 20 %", "negatives, hardest 1 %")
    rows = [
        [f"{gamma:g}", *(f"{100 * share:.1f} %" for share in shares)]
        for gamma, *shares in (row.values() for row in found.shares())
    ]
    return (
        f'<div class="charts">{charts}</div>'
        f"{_table(head, rows, name='Share of the loss')}{_note(procedure_text(found))}"
    )


def _cumulative(curve: Curve, style: int) -> Line:
    points = list(zip(curve.fraction, curve.loss, strict=True))
    return Line(f"gamma {curve.gamma:g}", points, style % 6)


# --- run -----------------------------------------------------------------------------------------


def _run(report: Report) -> str:
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in report.facts.items()
    )
    parts = [f'<dl class="facts">{facts}</dl>'] if facts else []
    if report.compared_with:
        parts.append(f"<h3>Config, against {escape(report.compared_with)}</h3>")
        if report.changes:
            rows = [[f"<code>{escape(one)}</code>" for one in row] for row in report.changes]
            parts.append(_table(("key", "there", "in this run"), rows, name="Changes of config"))
        else:
            parts.append(_note("No difference, but for what every run fills in."))
    return "".join(parts)


# --- gallery -------------------------------------------------------------------------------------


def _gallery(report: Report) -> str:
    if not report.pictures or not report.errors:
        return ""
    worst = sum(one.chosen == "worst" for one in report.pictures)
    random = len(report.pictures) - worst
    chosen = [f"the {worst} that cost most AP50"] if worst else []
    chosen += [f"{random} drawn at random from the others"] if random else []
    classes = "".join(f"<option>{escape(name)}</option>" for name in report.errors.classes)
    states = {box.state for one in report.pictures for box in one.boxes.detections}
    used = [state for state in STATES if state != "ignored" or state in states]
    kinds = "".join(
        f'<label class="chip"><input type="checkbox" name="kind" value="{state}" checked>'
        f"{_dot(state)}{state} <output></output></label>"
        for state in used
    )
    cards = "".join(
        f'<li class="card"><button type="button" aria-label="Enlarge {escape(one.name)}">'
        f'<span class="frame"><img src="{as_data_uri(one)}" alt="" decoding="async" '
        f'width="{one.size[0]}" height="{one.size[1]}">'
        f'<svg viewBox="0 0 {one.size[0]} {one.size[1]}" role="img">'
        f"</svg></span></button><p>{escape(one.name)}</p>"
        '<p class="counts"></p></li>'
        for one in report.pictures
    )
    about = (
        f"{len(report.pictures)} of {report.errors.images} images: {' and '.join(chosen)}. "
        f"What an image costs is its part of the gains above. At the lowest score that is chosen, "
        "an object counts as missed if no detection of that score found it or points to it."
    )
    return (
        f"{_note(about)}<noscript>{_note('Boxes and filters need JavaScript.')}</noscript>"
        '<form class="filters" aria-label="Filters">'
        f'<label>class <select name="class"><option value="">all</option>{classes}</select></label>'
        '<label>images <select name="set"><option value="">all</option>'
        '<option value="worst">costliest</option><option value="random">random</option>'
        "</select></label>"
        '<label>score from <input type="range" name="min" min="0.05" max="0.95" step="0.05" '
        f'value="{report.errors.score_thr:g}"> <output name="score"></output></label>'
        '<label><input type="checkbox" name="truth"> all objects</label>'
        f'<fieldset><legend class="hidden">kinds of boxes</legend>{kinds}</fieldset>'
        '<p class="status"><span role="status"></span> <button type="reset">show all</button></p>'
        f'</form><ul class="cards">{cards}</ul>{_DIALOG}'
    )


_DIALOG = (
    '<dialog aria-labelledby="shown"><div class="bar-top"><h3 id="shown"></h3>'
    '<button type="button" name="back" aria-label="Previous image">←</button>'
    '<button type="button" name="on" autofocus aria-label="Next image">→</button>'
    '<button type="button" name="close" aria-label="Close">✕</button></div>'
    '<span class="frame"><img alt=""><svg aria-hidden="true"></svg>'
    '</span><div class="boxes"></div></dialog>'
)
