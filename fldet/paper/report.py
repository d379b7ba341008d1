"""The paper's tables beside the runs of a tier: what agrees, and how surely."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev

from fldet.paper.agreement import DRAWN, Agreement, agreement
from fldet.paper.rows import Row, Table
from fldet.paper.runs import ALPHAS, Run, check_digest, read_record, result_of, runs_in
from fldet.paper.statements import Measured, Verdict, judge, read_statements
from fldet.paper.tiers import Tier

__all__ = ["Report", "RowReport", "Search", "TableReport", "make_report", "markdown"]


@dataclass(frozen=True)
class RowReport:
    """A row of the paper beside our runs.

    Attributes:
        name: as the paper labels it.
        paper: AP in percent, or milliseconds; None for controls.
        ours: what the seeds gave.
        seeds: those that came to an end, in the order of ``ours.values``.
        mean: over them, None without any.
        std: over them, None with fewer than two.
        delta: mean minus paper.
    """

    name: str
    paper: float | None
    ours: Measured
    seeds: tuple[int, ...]
    mean: float | None
    std: float | None
    delta: float | None


@dataclass(frozen=True)
class TableReport:
    """A table of the paper beside our runs.

    Attributes:
        name: of the table.
        title: what varies.
        quantity: ``AP`` in percent or ``ms`` per image.
        rows: in the paper's order.
        agreement: of the order of the rows.
        seconds: spent on its runs; those shared with other tables count here too.
    """

    name: str
    title: str
    quantity: str
    rows: tuple[RowReport, ...]
    agreement: Agreement
    seconds: float


@dataclass(frozen=True)
class Search:
    """A row of Table 1b with every alpha.

    Attributes:
        row: as the paper labels it: gamma and the alpha that it found best.
        paper: its AP in percent.
        alphas: what each alpha gave here.
        best: the alpha of the highest mean, None without any.
    """

    row: str
    paper: float
    alphas: dict[str, Measured]
    best: str | None


@dataclass(frozen=True)
class Report:
    """Everything that ``fldet paper report`` says.

    Attributes:
        tier: its name.
        header: what the tier is, from its file.
        tables: those asked for.
        verdicts: on the paper's statements about them.
        search: of the alphas, empty if there was none.
        search_agreement: of the paper's AP with that of the best alphas.
        machines: processor, versions and threads of the runs; more than one if they differ.
        seconds: spent on all runs shown, each counted once.
        cfg_options: overrides that all runs had.
    """

    tier: str
    header: str
    tables: tuple[TableReport, ...]
    verdicts: tuple[Verdict, ...]
    search: tuple[Search, ...]
    search_agreement: Agreement | None
    machines: tuple[dict[str, str], ...]
    seconds: float
    cfg_options: tuple[str, ...]


def make_report(tables: Sequence[Table], tier: Tier, work_dir: Path) -> Report:
    """Returns what came out of the runs of a tier.

    Args:
        tables: from ``tables_of``.
        tier: whose runs.
        work_dir: folder of all tiers.

    Raises:
        UsageError: a run was begun with another config than the row has now.
        DataError: a file of a run cannot be read.
    """
    runs = runs_in(work_dir, tier)
    by_row: dict[str, list[Run]] = {}
    for run in runs:
        for label in run.rows:
            by_row.setdefault(label, []).append(run)
    used = [run for table in tables for row in table.rows for run in _runs_of(table, row, by_row)]
    search = _search(tables, by_row)
    used += [
        run
        for label, of_it in by_row.items()
        if search and " with alpha " in label
        for run in of_it
    ]
    distinct = list({run.folder: run for run in used}.values())
    begun = [record for run in distinct if (record := read_record(run.folder)).digest]
    reports = tuple(_table(table, tier, by_row) for table in tables)
    return Report(
        tier=tier.name,
        header=tier.header,
        tables=reports,
        verdicts=tuple(_verdicts(reports)),
        search=search,
        search_agreement=_search_agreement(search) if search else None,
        machines=_machines(record.machine for record in begun),
        seconds=sum(sum(record.seconds.values()) for record in begun),
        cfg_options=next((record.cfg_options for record in begun), ()),
    )


def _runs_of(table: Table, row: Row, by_row: Mapping[str, list[Run]]) -> list[Run]:
    return by_row.get(f"{table.name} {row.name}", [])


def _table(table: Table, tier: Tier, by_row: Mapping[str, list[Run]]) -> TableReport:
    quantity = "ms" if table.name == "table1e" and not tier.is_paper else "AP"
    rows = tuple(_row(row, _runs_of(table, row, by_row), quantity) for row in table.rows)
    both = [row for row in rows if row.paper is not None and row.ours.values]
    folders = {run.folder for row in table.rows for run in _runs_of(table, row, by_row)}
    return TableReport(
        name=table.name,
        title=table.title,
        quantity=quantity,
        rows=rows,
        agreement=agreement([row.paper or 0.0 for row in both], [row.ours.values for row in both]),
        seconds=sum(sum(read_record(folder).seconds.values()) for folder in folders),
    )


def _row(row: Row, runs: Iterable[Run], quantity: str) -> RowReport:
    ours, seeds = _measured(runs, quantity)
    mean = ours.mean if ours.values else None
    paper = row.paper.get(quantity)
    return RowReport(
        name=row.name,
        paper=paper,
        ours=ours,
        seeds=seeds,
        mean=mean,
        std=stdev(ours.values) if len(ours.values) > 1 else None,
        delta=None if mean is None or paper is None else mean - paper,
    )


def _measured(runs: Iterable[Run], quantity: str) -> tuple[Measured, tuple[int, ...]]:
    """Returns what the seeds gave, and which of them came to an end."""
    found, seeds = Measured(), []
    for run in runs:
        record = read_record(run.folder)
        check_digest(run, record)
        value = result_of(run).get(quantity) if record.state == "done" else None
        if record.state == "diverged":
            found = replace(found, diverged=found.diverged + 1)
        elif value is None:
            found = replace(found, missing=found.missing + 1)
        else:
            found = replace(found, values=(*found.values, float(value)))
            seeds.append(run.seed)
    return found, tuple(seeds)


def _verdicts(tables: Iterable[TableReport]) -> Iterable[Verdict]:
    for table in tables:
        rows = {row.name: row.ours for row in table.rows}
        for statement in read_statements():
            if (statement.table, statement.quantity) == (table.name, table.quantity):
                yield judge(statement, rows)


def _search(tables: Sequence[Table], by_row: Mapping[str, list[Run]]) -> tuple[Search, ...]:
    found = []
    for row in (row for table in tables if table.name == "table1b" for row in table.rows):
        alphas = {
            f"{alpha:g}": _measured(
                by_row.get(f"table1b {row.name} with alpha {alpha:g}", ()), "AP"
            )[0]
            for alpha in ALPHAS
        }
        run = [name for name, measured in alphas.items() if measured.values]
        best = max(run, key=lambda name: alphas[name].mean, default=None)
        found.append(Search(row.name, row.paper["AP"], alphas, best))
    searched = any(" with alpha " in label for label in by_row)
    return tuple(found) if searched else ()


def _search_agreement(search: Sequence[Search]) -> Agreement:
    both = [one for one in search if one.best]
    return agreement(
        [one.paper for one in both], [one.alphas[one.best or ""].values for one in both]
    )


def _machines(all_of_them: Iterable[dict[str, str]]) -> tuple[dict[str, str], ...]:
    return tuple({tuple(sorted(one.items())): one for one in all_of_them if one}.values())


# --- Markdown ------------------------------------------------------------------------------------


def markdown(report: Report, figures: Mapping[str, str]) -> str:
    """Returns the page.

    Args:
        report: what to say.
        figures: path of the picture of each table, relative to the page.
    """
    names = " ".join(table.name for table in report.tables)
    seeds = sorted({seed for table in report.tables for row in table.rows for seed in row.seeds})
    options = f" --cfg-options {' '.join(report.cfg_options)}" if report.cfg_options else ""
    lines = [
        "<!-- Made by fldet paper report: run it again instead of changing this page. -->",
        f"# The paper's tables in the tier {report.tier}",
        report.header,
        "    fldet paper run "
        f"{names} --tier {report.tier} --seeds {' '.join(map(str, seeds))}{options}\n"
        f"    fldet paper report {names} --tier {report.tier}",
        f"All runs shown here took {_hours(report.seconds)} of wall time together, each counted "
        "once, however many tables it is a row of.",
        *(f"Machine: {', '.join(f'{k} {v}' for k, v in one.items())}." for one in report.machines),
        "AP is in percent. The spread is the standard deviation over seeds, with the lowest and "
        "the highest in brackets. The difference of two AP on different data says little; "
        '"below best" is how far a row is from the best of its own column. Names of models in '
        "titles and rows are the paper's; what the tier puts in their place is said above.",
        _statement_table(report),
    ]
    for table in report.tables:
        lines += [f"## {table.name}: {table.title}", _row_table(table)]
        if any(row.paper is not None for row in table.rows):
            lines.append(_agreement_text(table.agreement))
        lines.append(f"Time spent: {_hours(table.seconds)}.")
        if table.name in figures:
            lines.append(f"![{table.name}]({figures[table.name]})")
    if report.search:
        lines += ["## The search for alpha in Table 1b", _search_table(report)]
        if report.search_agreement:
            lines.append(_agreement_text(report.search_agreement))
    return "\n\n".join(lines) + "\n"


def _statement_table(report: Report) -> str:
    counts = {
        judgement: sum(one.judgement == judgement for one in report.verdicts)
        for judgement in ("holds", "does not hold", "not decided")
    }
    rows = [
        (one.statement.says, one.statement.where, f"**{one.judgement}**", one.why)
        for one in report.verdicts
    ]
    return (
        "## What the paper says\n\n"
        "A difference is decided where the ranges over seeds do not overlap; with one seed it is "
        f"not. {counts['holds']} hold, {counts['does not hold']} do not, "
        f"{counts['not decided']} are not decided.\n\n"
        + _markdown_table(("statement", "where", "here", "figures"), rows)
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
    # Controls have no column of the paper.
    kept = {name: cells for name, cells in columns.items() if papers or set(cells) != {"-"}}
    return _markdown_table(tuple(kept), list(zip(*kept.values(), strict=True)))


def _below(value: float | None, column: Sequence[float]) -> str:
    return _number(None if value is None else max(column) - value)


def _search_table(report: Report) -> str:
    header = ("row", "paper", *(f"alpha {alpha:g}" for alpha in ALPHAS), "best alpha here")
    rows = [
        (one.row, _number(one.paper), *map(_ours, one.alphas.values()), one.best or "-")
        for one in report.search
    ]
    return _markdown_table(header, rows)


def _agreement_text(found: Agreement) -> str:
    if found.tau is None or found.p_value is None:
        return "Order of the rows: nothing to compare yet."
    orders = "all orders" if found.exact else f"{DRAWN} drawn orders"
    interval = (
        f"95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f} by drawing the seeds of "
        "each row anew"
        if found.interval
        else "no interval: one seed"
    )
    return (
        f"Order of the rows: Kendall's tau-b with the paper is {found.tau:.2f} over {found.rows} "
        f"rows ({interval}). One-sided permutation test over {orders}: p = {found.p_value:.2g}."
    )


def _ours(measured: Measured) -> str:
    notes = [f"{measured.mean:.1f}"] if measured.values else []
    if measured.diverged:
        notes.append(f"diverged ({measured.diverged})")
    if measured.missing:
        notes.append(f"not run ({measured.missing})")
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


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
