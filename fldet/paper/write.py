"""``fldet paper report`` as a function."""

from collections.abc import Sequence
from pathlib import Path

from fldet.files import make_folder, write_atomically
from fldet.paper.page import markdown
from fldet.paper.picture import plot_table
from fldet.paper.plan import tables_of
from fldet.paper.report import Report, make_report
from fldet.paper.tiers import find_tier
from fldet.results import Analysis, to_json


def write_report(
    names: Sequence[str] = (),
    *,
    tier: str = "laptop",
    work_dir: Path = Path("work_dirs/paper"),
    out_dir: Path | None = None,
) -> Analysis[Report]:
    """Compares the runs of a tier with the paper; writes Markdown first, JSON, and figures.

    Args:
        names: of the tables; all that the tier can run if there are none.
        tier: as ``find_tier`` takes it.
        work_dir: folder of the runs of all tiers.
        out_dir: where to write; an earlier report of the tier there is replaced. None is the folder
            ``report`` in that of the tier.

    Raises:
        UsageError: an unknown tier or table, or a run was begun with another config than the row
            has now.
        DataError: a file of a run cannot be read.
    """
    found = find_tier(tier)
    report = make_report(tables_of(names, found), found, work_dir)
    folder = out_dir or work_dir / found.name / "report"
    make_folder(folder)
    pictures = {table.key: plot_table(table, found.name, folder) for table in report.tables}
    page = markdown(report, {key: paths[0].name for key, paths in pictures.items()})
    files = [
        write_atomically(folder / f"{found.name}.md", page),
        write_atomically(folder / f"{found.name}.json", to_json("paper report", report)),
    ]
    return Analysis(report, [*files, *(path for paths in pictures.values() for path in paths)])
