"""``fldet paper run``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, loading, note
from fldet.cli.paper.view import View, minutes_left, summary
from fldet.cli.printed import PaperPlan, PaperRuns, PlannedRun
from fldet.errors import UsageError
from fldet.text import duration

if TYPE_CHECKING:
    from fldet.paper.tiers import Tier
    from fldet.runs.place import Place
    from fldet.runs.run import Run
    from fldet.runs.runner import Status

EXAMPLES = """
  fldet paper run table1b --tier laptop --seeds 0 1 2 --jobs 2
  fldet paper run table1b table1d --rows 2/.25 'OHEM 128/.5' --dry-run
  fldet paper run --tier full --gpus 8 --cfg-options data_root=/data/coco
  fldet paper run table1b --tier gpu --executor slurm --cluster-options slurm_partition=gpu
"""

# Options that take values until one does not fit; see fldet.cli.main.
LISTS: dict[str, Callable[[str], bool]] = {
    "--rows": bool,
    "--seeds": str.isdigit,
}

PAPER_IMAGES = 16  # a step
TIMED_IMAGES = 20  # for each row of Table 1e

Tables = Annotated[
    list[str] | None,
    typer.Argument(
        help="table1a to table3, controls, balance, classes, systems; all by default.",
        metavar="TABLE...",
    ),
]
TierName = Annotated[
    str, typer.Option(metavar="NAME", help="laptop, photos, gpu, full, or a .py file of your own.")
]
WorkDir = Annotated[Path, typer.Option(help="Folder of the runs of all tiers.")]


@command
def run(
    names: Tables = None,
    tier: TierName = "laptop",
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME ...", help="Only these rows, by the paper's names or their configs'."
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            min=0, metavar="N ...", help="Each row is run with each seed.", show_default="0"
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of runs at a time.", show_default="1; on a cluster all"),
    ] = None,
    search_alpha: Annotated[
        bool,
        typer.Option(
            "--search-alpha",
            help="Also run the rows of Table 1b with every alpha of Table 1a: 7 times as many.",
        ),
    ] = False,
    executor: options.Executor = "local",
    cluster_options: options.ClusterOptions = None,
    work_dir: WorkDir = Path("work_dirs/paper"),
    gpus: Annotated[int, typer.Option(min=1, help="Number of processes of each training.")] = 1,
    device: options.Device = "auto",
    cfg_options: options.CfgOptions = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and for how long.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train and test the rows of the paper's tables; started again, it goes on.

    Rows that are done are kept, a training under way goes on from its checkpoint. A row that fails
    is named and the others go on; the exit code is 1 then. Each command has OMP_NUM_THREADS cores,
    by default all of them divided by --jobs.
    """
    with loading("paper run"):
        from fldet.paper.plan import RunOptions, plan, tables_of
        from fldet.paper.tiers import find_tier
        from fldet.runs.place import Place

    place = Place(executor, jobs, tuple(cluster_options or ()), device, gpus)
    place.check()
    chosen = find_tier(tier)
    many = ("--gpus", str(gpus)) if gpus > 1 else ()
    runs = plan(
        tables_of(names or (), chosen),
        chosen,
        work_dir,
        seeds=tuple(dict.fromkeys(seeds or (0,))),
        rows=rows or (),
        search_alpha=search_alpha,
        options=RunOptions(
            train=("--device", device, *many),
            test=("--device", device, *many),
            timing=("--device", device, "--images", str(TIMED_IMAGES)),
            cfg=tuple(cfg_options or ()),
            gpus=gpus,
        ),
    )
    if chosen.is_paper:
        _require_images_of_the_paper(runs, gpus)
    out = Output("paper run", as_json=json)
    if dry_run:
        _show_plan(out, runs, chosen, jobs or 1)
        return
    statuses, received = _run(runs, chosen, place, work_dir)
    out.result(PaperRuns(statuses), text=lambda: summary(statuses))
    again = [one for one in statuses if one.state not in ("done", "diverged")]
    if received:
        note(f"stopped with {len(again)} runs to do; the same command goes on")
        raise typer.Exit(128 + received)
    if again:
        raise typer.Exit(1)
    note(f"next: fldet paper report {' '.join(names or ())} --tier {tier} --work-dir {work_dir}")


def _require_images_of_the_paper(runs: "list[Run]", gpus: int) -> None:
    """Raises UsageError unless a step of every training has as many images as the paper's."""
    others = {run.images for run in runs} - {None, PAPER_IMAGES}
    if others:
        raise UsageError(
            f"--gpus {gpus} trains with {others.pop()} images a step, the paper with "
            f"{PAPER_IMAGES}, and the schedule is the paper's",
            expected="--gpus 8",
            hint="other numbers: --cfg-options train_dataloader.batch_size=N, of one GPU",
        )


def _run(
    runs: "list[Run]", tier: "Tier", place: "Place", work_dir: Path
) -> "tuple[list[Status], int]":
    from fldet.engine.lock import locked
    from fldet.paper.asked import ask_for
    from fldet.runs.runner import run_all

    folder, jobs = work_dir / tier.name, place.count(len(runs))
    start = place.starter(folder / "cluster", len(runs))
    with locked(folder), View(jobs, tier.minutes) as view:
        ask_for(runs, folder)
        is_here = place.executor == "local"
        return run_all(runs, jobs=jobs, start=start, watch=view.show, timings_alone=is_here)


def _show_plan(out: Output, runs: "list[Run]", tier: "Tier", jobs: int) -> None:
    from fldet.runs.runner import known

    statuses = [known(run) for run in runs]
    left = minutes_left(statuses, jobs, tier.minutes)
    todo = [one for one in statuses if one.state not in ("done", "diverged")]
    commands = [
        PlannedRun(one.run.name, one.run.rows, [step.arguments for step in one.run.steps])
        for one in todo
    ]
    lines = [
        f"{one.run.name}  ({', '.join(one.run.rows)})\n"
        + "\n".join(f"  fldet {' '.join(step.arguments)}" for step in one.run.steps)
        for one in todo
    ]
    estimate = "for a time not known yet" if left is None else f"for about {duration(left)}"
    lines.append(
        f"{len(todo)} of {len(runs)} runs to do, {jobs} at a time, {estimate} "
        f"({len(statuses) - len(todo)} are done)"
    )
    out.result(PaperPlan(commands, left), text="\n".join(lines))
