"""``fldet cross-validate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.data.split import GroupBy, Stratify
from fldet.cli.output import Output, command, loading
from fldet.errors import UsageError
from fldet.text import table

if TYPE_CHECKING:
    from fldet.data.folds.split import SplitOptions
    from fldet.folds import CrossValidation, FoldFigure, WrittenCrossValidation

EXAMPLES = """
  fldet cross-validate my_config.py --folds 5 --stratify
  fldet cross-validate my_config.py --folds FOLDS --jobs 2
  fldet cross-validate my_config.py --executor slurm --cluster-options slurm_partition=gpu
"""

COUNT, SEED = 5, 0


@command
def cross_validate(
    config: options.Config,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="N|FOLDER",
            help="Number of folds, or the folder that fldet data split has written.",
            show_default=str(COUNT),
        ),
    ] = None,
    group_by: GroupBy = None,
    stratify: Stratify = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the division into folds.", show_default=str(SEED)),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of folds at a time.", show_default="1; on a cluster all"),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the trainings and what they found.",
            show_default="work_dirs/NAME_folds",
        ),
    ] = None,
    executor: options.Executor = "local",
    cluster_options: options.ClusterOptions = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of processes of each training.")] = 1,
    device: options.Device = "auto",
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train without each fold of the images in turn, and test on it: mean and spread.

    Every image is tested once, by a model that has not seen it. Started again, it goes on. A fold
    that fails is named and the others go on; the exit code is 1 then.
    """
    from fldet.config.load import load_config

    cfg = load_config(config, cfg_options or ())
    with loading(f"cross-validate {config}"):
        from fldet.cli.paper.view import View
        from fldet.folds import Settings
        from fldet.folds import cross_validate as run
        from fldet.runs.place import Place

    settings = Settings(
        _division(folds, group_by, stratify, seed),
        Place(executor, jobs, tuple(cluster_options or ()), device, gpus),
    )
    folder = work_dir or Path("work_dirs", f"{Path(config).stem}_folds")
    with View(jobs or 1, None) as view:
        done = run(cfg, settings, folder, watch=view.show)
    out = Output("cross-validate", as_json=json, quiet=quiet)
    out.result(done, text=lambda: cross_validation_text(done), essential=done.folder)
    if done.result is None:
        raise typer.Exit(1)


def _division(
    folds: str | None, group_by: str | None, stratify: bool, seed: int | None
) -> "SplitOptions | Path":
    """Returns how to divide, or the folder that has the folds."""
    from fldet.data.folds.split import SplitOptions

    if folds is None or folds.isdecimal():
        count = COUNT if folds is None else int(folds)
        return SplitOptions(count, group_by or "", stratify, SEED if seed is None else seed)
    if group_by or stratify or seed is not None:
        raise UsageError(
            f"the images are divided in {folds} already",
            expected="no --group-by, --stratify or --seed beside --folds FOLDER",
        )
    return Path(folds)


def cross_validation_text(done: "WrittenCrossValidation") -> str:
    """Returns the figures as a table and the files, or which folds have failed."""
    if done.result is None:
        from fldet.cli.paper.view import summary

        return summary(done.runs)
    result = done.result
    lines = [
        figures_table(result, "figure", result.figures),
        "",
        figures_table(result, "AP of class", result.classes),
        "",
        f"{sum(result.images)} images in {result.folds.count} folds, each tested by the model that "
        "was not trained on it; in percent",
        *map(str, done.files),
        f"next: fldet predict {done.folder} SOURCE",
    ]
    return "\n".join(lines)


def figures_table(result: "CrossValidation", title: str, figures: "tuple[FoldFigure, ...]") -> str:
    """Returns figures with their mean, standard deviation and value in each fold."""
    header = (title, "mean", "sd", *(f"fold {n}" for n in result.folds.numbers), "together")
    rows = [
        (one.name, *map(_cell, (one.mean, one.deviation, *one.folds, one.together)))
        for one in figures
    ]
    return table(header, rows)


def _cell(value: float) -> str:
    return "-" if value != value else f"{value:.1f}"
