"""The paper's tables beside the runs of a tier: what agrees, and how surely."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev

from fldet.paper.plan import ALPHAS, runs_in
from fldet.paper.rank_agreement import Agreement, agreement
from fldet.paper.rows import Row, Table
from fldet.paper.statements import Measured, Verdict, judge, read_statements
from fldet.paper.tiers import Tier
from fldet.runs.run import OF_CLASS, Record, Run, check_digest, read_record, result_of

Runs = Mapping[str, Mapping[str, Sequence[Run]]]  # by table and row

OTHER_FIGURES = {"AP50": "AP50", "AP75": "AP75", "AP_S": "AP_S", "AP_M": "AP_M", "AP_L": "AP_L"}
# of the systems of Table 2 besides: by the names of ``result_of``, what they are called
COSTS = {"parameters": "million parameters", "gflop": "GFLOP", "ms": "ms per image"}


@dataclass(frozen=True)
class RowReport:
    """A row of the paper beside our runs."""

    name: str  # as the paper labels it
    paper: float | None  # AP in percent, or milliseconds; None for controls
    ours: Measured  # what the seeds gave
    asked: tuple[int, ...]  # seeds that it was to be run with
    seeds: tuple[int, ...]  # those that came to an end, in the order of ``ours.values``
    mean: float | None  # over them, None without any
    std: float | None  # over them, None with fewer than two
    delta: float | None  # mean minus paper
    # the other COCO figures in percent, and costs, by name: the paper's and our mean; None where
    # there is none
    figures: dict[str, tuple[float | None, float | None]]
    # of a control, what the rows that it is to be compared with gave with the same seeds, by name
    beside: dict[str, Measured]


@dataclass(frozen=True)
class TableReport:
    """A table of the paper beside our runs."""

    name: str
    key: str  # the name, and the quantity where a table has two of them
    title: str  # what varies
    split: str  # of COCO, which the paper's figures are of
    quantity: str  # ``AP`` in percent or ``ms`` per image
    rows: tuple[RowReport, ...]  # in the paper's order
    # of the order of the rows. One that diverged with all seeds counts as 0 AP; one of which some
    # seeds diverged is left out.
    agreement: Agreement
    machines: tuple[dict[str, str], ...]  # of its runs, those shared with other tables too
    seconds: float  # spent on its runs; those shared with other tables count here too
    # what rows of other tables gave that are beside these, with the seeds of any of these
    beside: dict[str, Measured] = field(default_factory=dict)
    # AP of each class in percent by row, rows of other tables beside them among these; empty where
    # it is not asked for or not known
    per_class: dict[str, dict[str, Measured]] = field(default_factory=dict)

    def measured(self, quantity: str) -> dict[str, Measured]:
        """Returns what the rows gave, and by their labels those of other tables beside them.

        Args:
            quantity: that of the table, or ``AP of CLASS``.
        """
        if quantity != self.quantity:
            name = quantity.removeprefix(OF_CLASS)
            return {row: of.get(name, Measured()) for row, of in self.per_class.items()}
        return self.beside | {row.name: row.ours for row in self.rows}


@dataclass(frozen=True)
class Search:
    """A row of Table 1b with every alpha."""

    row: str  # as the paper labels it: gamma and the alpha that it found best
    paper: float  # its AP in percent
    # seeds that all alphas were to be run with; others of the paper's alpha do not count
    asked: tuple[int, ...]
    alphas: dict[str, Measured]  # what each alpha gave here
    # the alpha of the highest mean, of those that all seeds came to an end with; None without any
    best: str | None


@dataclass(frozen=True)
class Report:
    """Everything that ``fldet paper report`` says."""

    tier: str
    option: str  # what ``--tier`` takes for it
    header: str  # what the tier is, from its file
    tables: tuple[TableReport, ...]  # those asked for
    verdicts: tuple[Verdict, ...]  # on the paper's statements about them
    search: tuple[Search, ...]  # of the alphas, empty if there was none
    search_agreement: Agreement | None  # of the paper's AP with that of the best alphas
    # processor, versions and threads of the runs; more than one if they differ
    machines: tuple[dict[str, str], ...]
    seconds: float  # spent on all runs shown, each counted once
    cfg_options: tuple[str, ...]  # overrides that all runs had
    images: int | None  # in a step of all trainings, None without any
    gpus: int  # processes of each training, 1 where none was begun


def make_report(tables: Sequence[Table], tier: Tier, work_dir: Path) -> Report:
    """Returns what came out of the runs of a tier; ``work_dir`` is the folder of all tiers.

    Raises:
        UsageError: a run was begun with another config than the row has now.
        DataError: a file of a run cannot be read.
    """
    runs = runs_in(work_dir, tier)
    reports = []
    for table in tables:
        both = table.name == "table1e" and tier.is_paper
        for quantity in ("AP", "ms") if both else (_quantity(table, tier),):
            key = f"{table.name}_ms" if both and quantity == "ms" else table.name
            reports.append(_table(table, runs, quantity, key))
    search = _search(tables, runs)
    used = [
        run for table in tables for of_row in runs.get(table.name, {}).values() for run in of_row
    ]
    distinct = {run.folder: run for run in used}.values()
    begun = [record for run in distinct if (record := read_record(run.folder)).digest]
    trained = [record for record in begun if record.images is not None]
    return Report(
        tier=tier.name,
        option=tier.option,
        header=tier.header,
        tables=tuple(reports),
        verdicts=tuple(_verdicts(reports, tier)),
        search=search,
        search_agreement=_search_agreement(search) if search else None,
        machines=_machines(machine for record in begun for machine in record.machines),
        seconds=sum(sum(record.seconds.values()) for record in begun),
        cfg_options=trained[0].cfg_options if trained else (),
        images=trained[0].images if trained else None,
        gpus=_processes(trained[0]) if trained else 1,
    )


def _quantity(table: Table, tier: Tier) -> str:
    return "ms" if table.name == "table1e" and not tier.is_paper else "AP"


def _table(table: Table, runs: Runs, quantity: str, key: str) -> TableReport:
    mine = {row.name: runs.get(table.name, {}).get(row.name, []) for row in table.rows}
    rows = tuple(_row(row, mine[row.name], runs, quantity) for row in table.rows)
    all_mine = [run for of_row in mine.values() for run in of_row]
    beside = {label: _beside(label, all_mine, runs) for row in table.rows for label in row.beside}
    ranked = [
        (row.paper, row.ours.values or (0.0,) * row.ours.diverged)
        for row in rows
        if row.paper is not None and bool(row.ours.values) != bool(row.ours.diverged)
    ]
    folders = {run.folder for run in all_mine}
    records = [read_record(folder) for folder in folders]
    return TableReport(
        name=table.name,
        key=key,
        title=table.title,
        split=table.split,
        quantity=quantity,
        rows=rows,
        agreement=agreement([paper for paper, _ in ranked], [ours for _, ours in ranked]),
        machines=_machines(machine for record in records for machine in record.machines),
        seconds=sum(sum(record.seconds.values()) for record in records),
        beside={label: _measured(group, quantity)[0] for label, group in beside.items()},
        per_class=_per_class(table, mine | beside) if table.per_class else {},
    )


def _per_class(table: Table, runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Measured]]:
    """Returns the AP of each class by row, what is beside a row in front of it."""
    labels = dict.fromkeys(name for row in table.rows for name in (*row.beside, row.name))
    groups = {label: runs[label] for label in labels}
    found = (name for group in groups.values() for run in group for name in result_of(run))
    names = dict.fromkeys(name for name in found if name.startswith(OF_CLASS))
    if not names:
        return {}
    return {
        row: {name.removeprefix(OF_CLASS): _measured(group, name)[0] for name in names}
        for row, group in groups.items()
    }


def _beside(label: str, mine: Sequence[Run], runs: Runs) -> list[Run]:
    """Returns the runs of a row of any table, as ``table1b 2/.25``, with the seeds of others."""
    table, name = label.split(" ", 1)
    asked = {run.seed for run in mine}
    return [run for run in runs.get(table, {}).get(name, []) if run.seed in asked]


def _row(row: Row, mine: Sequence[Run], runs: Runs, quantity: str) -> RowReport:
    asked = tuple(run.seed for run in mine)
    ours, seeds = _measured(mine, quantity)
    mean = ours.mean if ours.values else None
    paper = row.paper.get(quantity)
    figures = {}
    for name in (*OTHER_FIGURES, *(COSTS if row.small else ())) if quantity == "AP" else ():
        values = _measured(mine, name)[0].values
        figures[name] = (row.paper.get(name), fmean(values) if values else None)
    beside = {label: _measured(_beside(label, mine, runs), quantity)[0] for label in row.beside}
    return RowReport(
        name=row.name,
        paper=paper,
        ours=ours,
        asked=asked,
        seeds=seeds,
        mean=mean,
        std=stdev(ours.values) if len(ours.values) > 1 else None,
        delta=None if mean is None or paper is None else mean - paper,
        figures=figures,
        beside=beside,
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


def _verdicts(tables: Iterable[TableReport], tier: Tier) -> Iterable[Verdict]:
    for table in tables:
        for statement in read_statements():
            of_class = statement.quantity.startswith(OF_CLASS)
            if statement.table == table.name and (of_class or statement.quantity == table.quantity):
                verdict = judge(statement, table.measured(statement.quantity))
                if tier.clips_gradients and statement.check in ("diverges", "fails"):
                    verdict = replace(verdict, why=f"{verdict.why}; the tier clips gradients")
                yield verdict


def _search(tables: Sequence[Table], runs: Runs) -> tuple[Search, ...]:
    """Returns every row of Table 1b with its alphas, if they were searched."""
    mine = runs.get("table1b", {})
    if not any(" with alpha " in name for name in mine):
        return ()
    found = []
    for row in (row for table in tables if table.name == "table1b" for row in table.rows):
        of_alpha = {f"{a:g}": mine.get(f"{row.name} with alpha {a:g}", []) for a in ALPHAS}
        asked = set.intersection(*({run.seed for run in group} for group in of_alpha.values()))
        alphas = {
            alpha: _measured([run for run in group if run.seed in asked], "AP")[0]
            for alpha, group in of_alpha.items()
        }
        whole = [a for a, it in alphas.items() if it.values and not it.missing + it.diverged]
        best = max(whole, key=lambda name: alphas[name].mean, default=None)
        found.append(Search(row.name, row.paper["AP"], tuple(sorted(asked)), alphas, best))
    return tuple(found)


def _search_agreement(search: Sequence[Search]) -> Agreement:
    both = [one for one in search if one.best]
    return agreement(
        [one.paper for one in both], [one.alphas[one.best or ""].values for one in both]
    )


def _processes(record: Record) -> int:
    stated = record.machines[-1].get("processes", "") if record.machines else ""
    return int(stated) if stated.isdecimal() and len(stated) < 7 else 1


def _machines(all_of_them: Iterable[dict[str, str]]) -> tuple[dict[str, str], ...]:
    return tuple({tuple(sorted(one.items())): one for one in all_of_them if one}.values())
