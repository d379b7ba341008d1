"""Doing a comparison: paces, trainings with their tests, timings, the page."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fldet.compare.page import write_page
from fldet.compare.plan import (
    Settings,
    begin,
    pace_run,
    read_pace,
    schedule_of,
    timing_run,
    training_run,
    write_config,
)
from fldet.compare.result import Comparison, read_comparison, timed_alike
from fldet.engine.lock import locked
from fldet.errors import StoppedError
from fldet.runs.run import Run
from fldet.runs.runner import Status, local_jobs, run_all

Watch = Callable[[Sequence[Status]], None]


@dataclass(frozen=True)
class WrittenComparison:
    """A comparison that was done, and its page."""

    page: Path
    result: Comparison


def compare(
    settings: Settings,
    work_dir: Path,
    *,
    jobs: int = 1,
    watch: Watch = lambda _: None,
) -> WrittenComparison:
    """Trains, tests and times detectors alike, and writes one page about them.

    Each command is a process of its own. Called again, it goes on: what is done stays, a training
    under way goes on from its checkpoint; contestants may be added. One that fails or diverges is
    reported on the page, and the others go on.

    Args:
        settings: contestants and their budget; see ``Settings``.
        work_dir: folder of all runs and of the page, ``compare.html``.
        jobs: trainings at a time, which share the cores and GPUs of this machine; timings are done
            one at a time, with nothing beside.
        watch: is told how far all runs of a phase are, several times a second.

    Raises:
        UsageError: the settings are not valid or not those that the work dir was begun with, or
            another process works in it.
        ConfigError, DataError: data or a config cannot be used.
        StoppedError: a signal has ended it; the same call goes on.
    """
    with locked(work_dir):
        settings, drafts = begin(settings, work_dir)
        do = partial(_do, device=settings.device, watch=watch)
        ended = _set_schedules(settings, drafts, work_dir, partial(do, jobs=jobs))
        folder = work_dir / "runs"
        trainings = {
            name: training_run(work_dir / f"{name}.py", folder / name / "seed_0", settings.device)
            for name in drafts
            if name not in ended
        }
        ended |= do(trainings, jobs=jobs)
        timings = {
            name: timing_run(run, folder / name / "timing", settings.device)
            for name, run in trainings.items()
            if ended[name].state == "done"
        }
        timed = do(timings, jobs=1)
        if not timed_alike([name for name in timed if timed[name].state == "done"], work_dir):
            for run in timings.values():  # some are of an earlier call, on another machine
                shutil.rmtree(run.folder)
            timed = do(timings, jobs=1)
        ended |= {name: one for name, one in timed.items() if one.state != "done"}
        result = read_comparison(settings, drafts, ended, work_dir)
        return WrittenComparison(write_page(result, work_dir), result)


def _set_schedules(
    settings: Settings,
    drafts: dict[str, Path],
    work_dir: Path,
    do: Callable[[dict[str, Run]], dict[str, Status]],
) -> dict[str, Status]:
    """Writes the configs that are not there; returns how those ended whose pace is not known."""
    missing = {name: one for name, one in drafts.items() if not (work_dir / f"{name}.py").exists()}
    runs = {}
    if not settings.iterations:
        runs = {
            name: pace_run(draft, work_dir / "runs" / name / "pace", settings.device)
            for name, draft in missing.items()
        }
    ended = do(runs)
    failed = {name: one for name, one in ended.items() if one.state != "done"}
    for name, draft in missing.items():
        if name not in failed:
            pace = read_pace(runs[name].folder, draft) if runs else None
            write_config(draft, schedule_of(settings, pace), work_dir / f"{name}.py")
    return failed


def _do(runs: dict[str, Run], *, jobs: int, device: str, watch: Watch) -> dict[str, Status]:
    """Does runs, and returns how each one ended."""
    start = local_jobs(jobs, device=device)
    statuses, received = run_all(list(runs.values()), jobs=jobs, start=start, watch=watch)
    if received:
        raise StoppedError(
            "stopped; what was done is kept",
            hint="the same command goes on",
            exit_code=128 + received,
        )
    return dict(zip(runs, statuses, strict=True))
