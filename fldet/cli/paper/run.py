"""``fldet paper run``."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, note
from fldet.text import duration, table, terminal

if TYPE_CHECKING:
    from fldet.paper.runner import Status
    from fldet.paper.runs import Run
    from fldet.paper.tiers import Tier

EXAMPLES = """\b
Examples:
  fldet paper run table1b --tier laptop --seeds 0 1 2 --jobs 2
  fldet paper run table1b table1d --rows 2/.25 'OHEM 128/.5' --dry-run
  fldet paper run --tier full --gpus 8 --cfg-options data_root=/data/coco
  fldet paper run table1b --tier gpu --executor slurm --cluster-options slurm_partition=gpu
"""

# Options that take values until one does not fit; see fldet.cli.main.
LISTS: dict[str, Callable[[str], bool]] = {
    "--rows": bool,
    "--seeds": str.isdigit,
    "--cluster-options": lambda value: "=" in value,
}

PAPER_IMAGES = 16  # a step
TIMED_IMAGES = 20  # for each row of Table 1e
TIMING_MINUTES = 1.0  # of a row of Table 1e on two CPU cores, by order of magnitude
REDRAW_SECONDS = 1.0
SAY_SECONDS = 60.0  # between two lines about runs under way, where there is no terminal

Tables = Annotated[
    list[str] | None,
    typer.Argument(help="table1a to table3, controls; all by default.", metavar="TABLE..."),
]
TierName = Annotated[
    str, typer.Option(metavar="NAME", help="laptop, gpu, full, or a .py file of your own.")
]
WorkDir = Annotated[Path, typer.Option(help="Folder of the runs of all tiers.")]


@command
def run(
    names: Tables = None,
    tier: TierName = "laptop",
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME ...",
            help="Only these rows, by the paper's names or their configs'.",
            show_default=False,
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
        typer.Option(min=1, help="Runs at a time.", show_default="1; on a cluster all"),
    ] = None,
    search_alpha: Annotated[
        bool,
        typer.Option(
            "--search-alpha",
            help="Also run the rows of Table 1b with every alpha of Table 1a: 7 times as many.",
        ),
    ] = False,
    executor: Annotated[
        str, typer.Option(metavar="local|slurm", help="Where the runs are done.")
    ] = "local",
    cluster_options: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE ...",
            help="Parameters of submitit: slurm_partition, gpus_per_node, timeout_min.",
            show_default=False,
        ),
    ] = None,
    work_dir: WorkDir = Path("work_dirs/paper"),
    gpus: Annotated[int, typer.Option(min=1, help="Processes of each training.")] = 1,
    device: options.Device = "auto",
    cfg_options: options.CfgOptions = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and for how long.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train and test the rows of the paper's tables; started again, it goes on.

    Rows that are done are kept, a training under way goes on from its checkpoint. A row that fails
    is named and the others go on; the exit code is 1 then. Each command has OMP_NUM_THREADS cores,
    by default all of them divided by --jobs.
    """
    note("fldet paper run: loading torch and MMDetection")
    from fldet.errors import UsageError
    from fldet.paper.runs import plan, tables_of
    from fldet.paper.tiers import find_tier

    if executor not in ("local", "slurm"):
        raise UsageError(f"unknown executor {executor!r}", expected="local or slurm")
    if cluster_options and executor == "local":
        raise UsageError("--cluster-options without a cluster", expected="--executor slurm")
    chosen = find_tier(tier)
    many = ("--gpus", str(gpus)) if gpus > 1 else ()
    runs = plan(
        tables_of(names or (), chosen),
        chosen,
        work_dir,
        seeds=tuple(dict.fromkeys(seeds or (0,))),
        rows=rows or (),
        search_alpha=search_alpha,
        train_options=("--device", device, *many),
        test_options=("--device", device, *many),
        timing_options=("--device", device, "--images", str(TIMED_IMAGES)),
        cfg_options=cfg_options or (),
        gpus=gpus,
    )
    if chosen.is_paper:
        _require_images_of_the_paper(runs, gpus)
    out = Output("paper run", as_json=json)
    if dry_run:
        _show_plan(out, runs, chosen, jobs or 1)
        return
    statuses, received = _run(
        runs, chosen, executor, cluster_options or [], jobs, device, gpus, work_dir
    )
    out.result({"runs": statuses}, text=lambda: summary(statuses))
    again = [one for one in statuses if one.state not in ("done", "diverged")]
    if received:
        note(f"stopped with {len(again)} runs to do; the same command goes on")
        raise typer.Exit(128 + received)
    if again:
        raise typer.Exit(1)
    note(f"next: fldet paper report {' '.join(names or ())} --tier {tier} --work-dir {work_dir}")


def _require_images_of_the_paper(runs: "list[Run]", gpus: int) -> None:
    """Raises UsageError unless a step of every training has as many images as the paper's."""
    from fldet.errors import UsageError

    others = {run.images for run in runs} - {None, PAPER_IMAGES}
    if others:
        raise UsageError(
            f"--gpus {gpus} trains with {others.pop()} images a step, the paper with "
            f"{PAPER_IMAGES}, and the schedule is the paper's",
            expected="--gpus 8",
            hint="other numbers: --cfg-options train_dataloader.batch_size=N, of one GPU",
        )


def _run(
    runs: "list[Run]",
    tier: "Tier",
    executor: str,
    cluster_options: list[str],
    jobs: int | None,
    device: str,
    gpus: int,
    work_dir: Path,
) -> "tuple[list[Status], int]":
    from fldet.config.load import parse_override
    from fldet.engine.lock import locked
    from fldet.paper.runner import LocalJob, job_environment, run_all, visible_devices
    from fldet.paper.runs import ask_for

    start: Callable[..., Any]
    if executor == "slurm":
        from fldet.paper.cluster import Cluster

        parameters = dict(map(parse_override, cluster_options))
        folder = work_dir / tier.name / "cluster"
        start = Cluster(folder, parameters, device=device, gpus=gpus).start
        jobs = jobs or len(runs)
    else:
        jobs = jobs or 1
        devices = [] if ":" in device else visible_devices()  # cuda:1 is that of all runs

        def start(run: "Run", slot: int) -> LocalJob:
            beside = 1 if run.is_timing else jobs or 1  # a timing has all cores
            environment = job_environment(slot, beside, gpus, devices)
            return LocalJob(run, environment, device=device, gpus=gpus)

    with locked(work_dir / tier.name), View(jobs, tier.minutes) as view:
        ask_for(runs, work_dir / tier.name)
        return run_all(
            runs, jobs=jobs, start=start, watch=view.show, timings_alone=executor == "local"
        )


def _show_plan(out: Output, runs: "list[Run]", tier: "Tier", jobs: int) -> None:
    from fldet.paper.runner import known

    statuses = [known(run) for run in runs]
    left = minutes_left(statuses, jobs, tier.minutes)
    todo = [one for one in statuses if one.state not in ("done", "diverged")]
    commands = [
        {
            "run": one.run.name,
            "rows": one.run.rows,
            "commands": [s.arguments for s in one.run.steps],
        }
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
    out.result({"todo": commands, "minutes": left}, text="\n".join(lines))


# --- what is shown while the runs are done ---


class View:
    """Rows by seeds on a terminal, redrawn; lines elsewhere. On stderr.

    Args:
        jobs: runs at a time.
        minutes: of one run, by the tier's header; None if it does not say.
    """

    def __init__(self, jobs: int, minutes: float | None) -> None:
        self._jobs = jobs
        self._minutes = minutes
        self._live: Any = None
        self._shown = 0.0
        self._states: dict[Path, str] = {}
        self._said: dict[Path, float] = {}

    def __enter__(self) -> "View":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn from this thread only: processes are started from it.
            self._live = Live(console=Console(file=terminal()), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, statuses: "Sequence[Status]") -> None:
        """Shows how far all runs are; draws at most once a second, but for the last time."""
        news = [one for one in statuses if self._states.get(one.run.folder) != one.state]
        self._states.update((one.run.folder, one.state) for one in news)
        if self._live:
            if news or time.monotonic() - self._shown >= REDRAW_SECONDS:
                self._shown = time.monotonic()
                self._live.update(self._table(statuses), refresh=True)
            return
        for one in statuses:
            self._say(one, statuses, is_news=one in news)

    def _table(self, statuses: "Sequence[Status]") -> Any:
        from rich.console import Group
        from rich.table import Table

        seeds = sorted({one.run.seed for one in statuses})
        drawn = Table("row", *(f"seed {seed}" for seed in seeds))
        rows: dict[str, dict[int, str]] = {}
        for one in statuses:
            rows.setdefault(one.run.folder.parent.name, {})[one.run.seed] = cell(one)
        for name, cells in rows.items():
            drawn.add_row(name, *(cells.get(seed, "") for seed in seeds))
        return Group(drawn, self._caption(statuses))

    def _caption(self, statuses: "Sequence[Status]") -> str:
        done = sum(one.state in ("done", "diverged") for one in statuses)
        left = minutes_left(statuses, self._jobs, self._minutes)
        rest = f", about {duration(left)} left" if left else ""
        return f"{done} of {len(statuses)} runs done{rest}"

    def _say(self, one: "Status", statuses: "Sequence[Status]", *, is_news: bool) -> None:
        now = time.monotonic()
        if one.state == "waiting":
            return
        is_over = one.state in ("done", "diverged", "failed", "stopped")
        if is_news or (not is_over and now - self._said[one.run.folder] > SAY_SECONDS):
            self._said[one.run.folder] = now
            rest = f"; {self._caption(statuses)}" if one.state in ("done", "diverged") else ""
            why = f"\n  {one.reason}\n  see {one.run.log}" if one.state == "failed" else ""
            note(f"{one.run.name}: {cell(one)}{rest}{why}")


def cell(one: "Status") -> str:
    """Returns the state of a run in few words."""
    if one.state == "done":
        return "done" if one.ap is None else f"done, AP {one.ap:.1f}"
    if one.iterations and one.state == "train":
        return f"train {one.iteration}/{one.iterations}"
    return one.state


def minutes_left(statuses: "Sequence[Status]", jobs: int, stated: float | None) -> float | None:
    """Returns an estimate for the runs that are not done, None where nothing is known.

    By the median of the runs done so far of the same kind; before there are any, by what the tier
    states of a training.
    """
    from statistics import median

    total = 0.0
    for timing in (False, True):
        of_kind = [one for one in statuses if one.run.is_timing == timing]
        ended = [one.seconds / 60 for one in of_kind if one.state == "done" and one.seconds]
        todo = [one for one in of_kind if one.state not in ("done", "diverged", "failed")]
        typical = median(ended) if ended else TIMING_MINUTES if timing else stated
        if todo and typical is None:
            return None
        left = sum(max(0.0, (typical or 0.0) - one.seconds / 60) for one in todo)
        total += left if timing else left / jobs
    return total


def summary(statuses: "Sequence[Status]") -> str:
    """Returns the runs as a table, then those that failed with their logs."""
    cells = [(one.run.name, cell(one), duration(one.seconds / 60)) for one in statuses]
    lines = [table(("run", "state", "time"), cells, align="left")]
    lines += [
        f"{one.run.name} failed: {one.reason}\n  see {one.run.log}"
        for one in statuses
        if one.state == "failed"
    ]
    return "\n".join(lines)
