"""``fldet analyze log`` as a function."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fldet.analysis.log.pictures import RUN_COLORS, plot_logs
from fldet.analysis.log.read import TrainingLog, read_log
from fldet.analysis.log.summary import RunSummary, summarize_log
from fldet.errors import UsageError
from fldet.results import ANALYSES, Analysis
from fldet.text import file_name


def analyze_log(
    work_dirs: Sequence[Path], *, out_dir: Path = ANALYSES, smooth: int = 1
) -> Analysis[list[RunSummary]]:
    """Sums up and draws how runs went; returns the figures of each run.

    Args:
        work_dirs: folders of runs, as ``read_log`` takes them.
        out_dir: where to draw.
        smooth: logged points that a loss is averaged over, >= 1.

    Raises:
        DataError: as ``read_log``.
        UsageError: more runs than there are colours.
    """
    runs = read_logs(work_dirs)
    stem = file_name("_".join(["log", *(path.resolve().name for path in work_dirs)])[:80])
    files = plot_logs(runs, out_dir / stem, smooth=smooth)
    return Analysis([summarize_log(run, smooth=smooth) for run in runs], files)


def read_logs(work_dirs: Sequence[Path]) -> list[TrainingLog]:
    """Returns the log of each run, in the order given; more runs than colours are a UsageError."""
    if len(work_dirs) > len(RUN_COLORS):
        raise UsageError(
            f"{len(work_dirs)} runs in one figure", expected=f"at most {len(RUN_COLORS)}"
        )
    names = Counter(path.resolve().name for path in work_dirs)
    return [
        read_log(path, name=str(path) if names[path.resolve().name] > 1 else "")
        for path in work_dirs
    ]
