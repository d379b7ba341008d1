"""``fldet analyze log``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.cli.printed import LogAnalyzed
from fldet.results import ANALYSES
from fldet.text import clock, table

if TYPE_CHECKING:
    from fldet.analysis.log.summary import RunSummary

EXAMPLES = """
  fldet analyze log work_dirs/r50_fpn_1x
  fldet analyze log work_dirs/fl_gamma_2 work_dirs/ce --smooth 20 --out-dir figures
"""


@command
def log(
    work_dirs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="WORK_DIR")],
    out_dir: options.OutDir = ANALYSES,
    smooth: Annotated[
        int, typer.Option(min=1, help="Logged points that a loss is averaged over.")
    ] = 1,
    json: options.Json = False,
) -> None:
    """Draw and sum up how runs went.

    Losses, learning rate, AP and speed; several runs stand beside each other.
    """
    note(f"fldet analyze log {' '.join(map(str, work_dirs))}")
    from fldet.files import require_work_dir

    for work_dir in work_dirs:
        require_work_dir(work_dir)
    from fldet.analysis.log.analyze import analyze_log

    done = analyze_log(work_dirs, out_dir=out_dir, smooth=smooth)
    Output("analyze log", as_json=json).result(
        LogAnalyzed(smooth, done.result, done.files),
        text=lambda: run_text(done.result, smooth, done.files),
    )


def run_text(runs: Sequence["RunSummary"], smooth: int, pictures: Sequence[Path]) -> str:
    """Returns a column for each run, then the paths of the pictures."""
    losses = dict.fromkeys(name for run in runs for name in run.losses)
    val_losses = dict.fromkeys(name for run in runs for name in run.val_losses)
    rows = [
        ("starts", *(str(run.starts) for run in runs)),
        ("iterations", *(f"{run.iterations:,}" for run in runs)),
        *((f"last {name}", *(_number(run.losses.get(name)) for run in runs)) for name in losses),
        *(
            (f"last val {name}", *(_number(run.val_losses.get(name)) for run in runs))
            for name in val_losses
        ),
        ("best AP", *(_best(run) for run in runs)),
        ("seconds per iteration", *(_number(run.seconds_per_iteration, 3) for run in runs)),
        ("waiting for data", *(_percent(run.data_loading_frac) for run in runs)),
        ("time of training", *(clock(run.seconds) for run in runs)),
    ]
    if any(run.not_finite for run in runs):
        rows.append(("points with NaN or inf", *(str(run.not_finite) for run in runs)))
    lines = [table(("", *(run.name for run in runs)), rows)]
    if smooth > 1:
        lines.append(f"training losses: mean of the last {smooth} logged points")
    return "\n".join([*lines, *(f"picture  {path}" for path in pictures)])


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if not 1e9 < abs(value) < math.inf else f"{value:.{digits}e}"


def _best(run: "RunSummary") -> str:
    if run.best_ap is None:
        return "-"
    return f"{_number(run.best_ap, 3)} at {run.best_iteration:,}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if abs(value) < 1e9 else "-"
