"""The report of a tier as a page of Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import get_args

from fldet.paper.plan import ALPHAS
from fldet.paper.rank_agreement import DRAWN, Agreement
from fldet.paper.report import COSTS, OTHER_FIGURES, Report, RowReport, TableReport
from fldet.paper.statements import OURS, Judgement, Measured
from fldet.text import markdown_table


def markdown(report: Report, figures: Mapping[str, str]) -> str:
    """Returns the page; ``figures`` are paths of the pictures by table, relative to the page."""
    images = f" A step of a training has {report.images} images." if report.images else ""
    lines = [
        "<!-- Made by fldet paper report: run it again instead of changing this page. -->",
        f"# The paper's tables in the tier {report.tier}",
        report.header,
        _commands(report),
        f"All runs shown here took {_hours(report.seconds)} of wall time together, each counted "
        f"once, however many tables it is a row of.{images}",
        *(f"Machine: {', '.join(f'{k} {v}' for k, v in one.items())}." for one in report.machines),
        "AP is in percent. The spread is the standard deviation over seeds, with the lowest and "
        "the highest in brackets. The difference of two AP on different data says little; "
        '"below best" is how far a row is from the best of its own column. Names of models in '
        "titles and rows are the paper's; what the tier puts in their place is said above.",
        _statement_table(report),
    ]
    for table in report.tables:
        lines += [f"## {table.key}: {table.title}", _row_table(table)]
        if any(row.paper is not None for row in table.rows):
            lines.append(f"The paper's figures are of COCO {table.split}. {_agreement_text(table)}")
        lines.append(f"Time spent: {_hours(table.seconds)}.")
        if table.quantity == "ms" and len(table.machines) > 1:
            lines.append(
                "**The rows were timed on different machines, versions or numbers of threads.**"
            )
        if table.key in figures:
            lines.append(f"![{table.key}]({figures[table.key]})")
        if any(ours is not None for row in table.rows for _, ours in row.figures.values()):
            lines += ["The other figures, means over the seeds:", _figure_table(table)]
        if table.per_class:
            lines += [
                "AP of each class, means over the seeds with the lowest and the highest:",
                _class_table(table),
            ]
    if report.search:
        lines += ["## The search for alpha in Table 1b", _search_table(report)]
        if report.search_agreement:
            lines.append(_tau_text(report.search_agreement))
    return "\n\n".join(lines) + "\n"


def _commands(report: Report) -> str:
    """Returns what makes the runs and the page."""
    asked: dict[tuple[str, ...], list[str]] = {}  # tables by options
    for table in report.tables:
        for options in _options({row.name: row.asked for row in table.rows}):
            asked.setdefault(options, []).append(table.name)
    for options in _options({one.row: one.asked for one in report.search}):
        asked.setdefault((*options, "--search-alpha"), []).append("table1b")
    common = ["--tier", report.option]
    if report.gpus > 1:
        common += ["--gpus", str(report.gpus)]
    if report.cfg_options:
        common += ["--cfg-options", *map(quote, report.cfg_options)]
    lines = [
        " ".join(["fldet paper run", *dict.fromkeys(names), *options, *common])
        for options, names in asked.items()
    ]
    names = list(dict.fromkeys(table.name for table in report.tables))
    lines.append(f"fldet paper report {' '.join(names)} --tier {report.option}")
    return "\n".join(f"    {line}" for line in lines)


def _options(asked: Mapping[str, tuple[int, ...]]) -> Iterable[tuple[str, ...]]:
    """Yields ``--seeds`` for the rows of a table, with ``--rows`` where others have other seeds."""
    for seeds in dict.fromkeys(filter(None, asked.values())):
        names = [name for name, theirs in asked.items() if theirs == seeds]
        rows = () if len(names) == len(asked) else ("--rows", *map(quote, names))
        yield (*rows, "--seeds", *map(str, seeds))


def _statement_table(report: Report) -> str:
    judgements = [one.judgement for one in report.verdicts]
    counts = ", ".join(f"{judgements.count(word)} {word}" for word in get_args(Judgement))
    rows = [
        (one.statement.says, one.statement.where, f"**{one.judgement}**", one.why)
        for one in report.verdicts
    ]
    ours = f'What is "{OURS}" is asked here. ' if any(OURS in row for row in rows) else ""
    return (
        "## What the paper says\n\n"
        "A difference is decided where the ranges over seeds do not overlap, all seeds of all rows "
        "were run, and there are two or more. Chance alone separates two equal rows of three seeds "
        "in one case of ten, of two seeds in one of three. That a row is not above another is not "
        f"contradicted by ranges that overlap. {ours}In short: {counts}.\n\n"
        + markdown_table(("statement", "where", "here", "figures"), rows)
    )


def _row_table(table: TableReport) -> str:
    papers = [row.paper for row in table.rows if row.paper is not None]
    means = [row.mean for row in table.rows if row.mean is not None]
    columns = {
        "row": [row.name for row in table.rows],
        f"paper {table.quantity}": [_number(row.paper) for row in table.rows],
        f"here {table.quantity}": [_ours(row.ours) for row in table.rows],
        "spread": [_spread(row) for row in table.rows],
        "seeds": [str(len(row.ours.values)) for row in table.rows],
        "delta": [_number(row.delta, "+") for row in table.rows],
    }
    if table.quantity == "AP":
        columns["below best: paper"] = [_below(row.paper, papers) for row in table.rows]
        columns["below best: here"] = [_below(row.mean, means) for row in table.rows]
        columns["beside it"] = [_beside(row) for row in table.rows]
    # Controls have no figures of the paper, its rows nothing beside them.
    idle = {"beside it"} if papers else {name for name in columns if set(columns[name]) == {"-"}}
    kept = {name: cells for name, cells in columns.items() if name not in idle}
    return markdown_table(tuple(kept), list(zip(*kept.values(), strict=True)))


def _below(value: float | None, column: Sequence[float]) -> str:
    return _number(None if value is None else max(column) - value)


def _search_table(report: Report) -> str:
    alphas = (f"alpha {alpha:g}" for alpha in ALPHAS)
    header = ("row", "paper", *alphas, "seeds", "best alpha here")
    rows = [
        (
            *(one.row, _number(one.paper), *map(_ours, one.alphas.values())),
            *(str(len(one.asked)), one.best or "-"),
        )
        for one in report.search
    ]
    return markdown_table(header, rows)


def _agreement_text(table: TableReport) -> str:
    found = _tau_text(table.agreement)
    diverged = [row.name for row in table.rows if row.ours.diverged and not row.ours.values]
    mixed = [row.name for row in table.rows if row.ours.diverged and row.ours.values]
    if diverged:
        found += f" Counted as 0: {', '.join(diverged)}."
    if mixed:
        found += f" Left out, as some seeds diverged: {', '.join(mixed)}."
    return found


def _tau_text(found: Agreement) -> str:
    if found.tau is None or found.p_value is None:
        return "Order of the rows: nothing to compare yet."
    orders = "all orders" if found.exact else f"{DRAWN} drawn orders"
    spread = (
        f"{found.range[0]:.2f} to {found.range[1]:.2f} in 95 % of draws with means moved as other "
        "seeds might have moved them"
        if found.range
        else "no range: a row has one seed"
    )
    return (
        f"Order of the rows: Kendall's tau-b with the paper is {found.tau:.2f} over {found.rows} "
        f"rows ({spread}). One-sided permutation test over {orders}: p = {found.p_value:.2g}."
    )


def _figure_table(table: TableReport) -> str:
    """Returns the other figures of each row; the paper's where it states them."""
    columns = {"row": [row.name for row in table.rows]}
    for name, words in {**OTHER_FIGURES, **COSTS}.items():
        both = [row.figures.get(name, (None, None)) for row in table.rows]
        for whose, values in (
            ("paper", [paper for paper, _ in both]),
            ("here", [o for _, o in both]),
        ):
            if (whose == "here" and name in OTHER_FIGURES) or set(values) != {None}:
                columns[f"{words}: {whose}"] = [_number(value) for value in values]
    return markdown_table(tuple(columns), list(zip(*columns.values(), strict=True)))


def _class_table(table: TableReport) -> str:
    classes = next(iter(table.per_class.values()))
    header = ("row", *(name.replace("|", r"\|") for name in classes))
    rows = [
        (row, *(_with_range(measured) for measured in of_class.values()))
        for row, of_class in table.per_class.items()
    ]
    return markdown_table(header, rows)


def _with_range(measured: Measured) -> str:
    values = measured.values
    several = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return _ours(measured) + several


def _beside(row: RowReport) -> str:
    return "; ".join(f"{label}: {_ours(other)}" for label, other in row.beside.items()) or "-"


def _ours(measured: Measured) -> str:
    notes = [f"{measured.mean:.1f}"] if measured.values else []
    if measured.diverged:
        notes.append(f"diverged ({measured.diverged})")
    if measured.missing:
        notes.append(f"no result ({measured.missing})")
    return ", ".join(notes) or "not run"


def _spread(row: RowReport) -> str:
    if not row.ours.values:
        return "-"
    low, high = min(row.ours.values), max(row.ours.values)
    return "one seed" if row.std is None else f"{row.std:.2f} ({low:.1f} to {high:.1f})"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.1f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
