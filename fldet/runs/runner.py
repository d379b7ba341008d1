"""Doing runs: several side by side, each command a process of its own.

A run goes on where it was left: commands that are done are not done again, a training goes on from
its newest checkpoint. So the runner may be killed at any time, and started again.
"""

import logging
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fldet.checkpoints.paths import checkpoints, newest_checkpoint
from fldet.devices import device_name, select_device
from fldet.engine.doctor import machine
from fldet.engine.lock import is_locked
from fldet.engine.signals import ASKED_TO_END, noted_signals
from fldet.errors import ConfigError, DataError
from fldet.files import make_folder
from fldet.processes import core_count
from fldet.runs.run import Run, Step, check_digest, digest_of, read_record, result_of

log = logging.getLogger("fldet")

TAKE_TURNS = 0.2  # seconds between two looks at the processes
WRITE_RECORD = 10.0  # seconds between two notes of the time spent
PAUSED = 30.0  # seconds between two looks, after which this process was stopped, commands included
WAIT_FOR_LOCK = 60.0  # seconds for the command of a runner that was killed to save and end
STOPPED = {code for number in ASKED_TO_END for code in (128 + number, -number)}

# The child asks the kernel for a SIGTERM when this process has gone, however it went, and then
# becomes the command. Linux only: elsewhere the commands of a runner that is killed go on to their
# end, and the lock of the work dir keeps the next runner away until then.
BOOT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(143)
os.execv(sys.executable, [sys.executable, "-m", "fldet", *sys.argv[2:]])
"""


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    run: Run
    # ``waiting``, the name of the step under way, ``queued`` on a cluster, ``stopped``, or one of
    # ``done``, ``diverged``, ``failed``
    state: str = "waiting"
    iteration: int = 0  # of the training, 0 where unknown
    iterations: int = 0  # in total, 0 where unknown
    seconds: float = 0.0  # spent on it so far, in all attempts
    ap: float | None = None  # in percent, once it is done; None for a timing
    reason: str = ""  # why it failed or diverged


class Job(Protocol):
    """A run that is under way somewhere."""

    run: Run

    def poll(self) -> Status:
        """Returns how far it is; goes on to the next command where one has ended."""
        ...

    def stop(self) -> None:
        """Asks it to end in good order."""
        ...


def run_all(
    runs: Sequence[Run],
    *,
    jobs: int,
    start: Callable[[Run, int], Job],
    watch: Callable[[Sequence[Status]], None],
    timings_alone: bool = True,
) -> tuple[list[Status], int]:
    """Does all runs that are not done yet, ``jobs`` at a time.

    Timings come last; where ``timings_alone``, all slots being on one machine, nothing runs beside
    one. ``start`` begins a run in a slot, numbered from 0; ``watch`` is told
    how far all are, several times a second.

    Returns:
        How each run ended, and the signal that stopped them, 0 for none.

    Raises:
        UsageError: a run was begun with another config; none is begun then.
        DataError: a file of a run cannot be read.
    """
    statuses = {run.folder: known(run) for run in runs}
    unfinished = [run for run in runs if statuses[run.folder].state not in ("done", "diverged")]
    todo = deque(_in_order(unfinished, timings_alone=timings_alone))
    active: dict[int, Job] = {}
    asked = False
    with noted_signals() as received:
        while active or (todo and not received.number):
            if received.number and not asked:
                asked = True
                for job in active.values():
                    job.stop()
            for slot in range(jobs):
                alone = timings_alone and bool(todo) and todo[0].is_timing
                if received.number or not todo or (alone and active):
                    break
                if slot not in active:
                    run = todo.popleft()
                    if statuses[run.folder].state not in ("diverged", "failed"):
                        active[slot] = start(run, slot)
            for slot, job in list(active.items()):
                statuses[job.run.folder] = status = job.poll()
                if status.state in ("done", "diverged", "failed", "stopped"):
                    del active[slot]
            watch(list(statuses.values()))
            time.sleep(TAKE_TURNS)
    watch(list(statuses.values()))
    return list(statuses.values()), received.number


def _in_order(runs: Sequence[Run], *, timings_alone: bool) -> list[Run]:
    """Returns runs with those that only time last; timings that want to be alone, all of them."""
    if not timings_alone:
        return sorted(runs, key=lambda run: run.is_timing)
    parts = [run.part(timing=timing) for timing in (False, True) for run in runs]
    # one that was stopped at its very end has no step left, and is only noted as done
    ended = [run for run in runs if not run.next_step(read_record(run.folder))]
    return [*ended, *(part for part in parts if part.next_step(read_record(part.folder)))]


def known(run: Run) -> Status:
    """Returns how far a run is by its files; one begun with another config is a UsageError."""
    record = read_record(run.folder)
    check_digest(run, record)
    done = record.state == "done" and run.next_step(record) is None
    state = record.state if done or record.state == "diverged" else "waiting"
    return Status(
        run,
        state,
        seconds=sum(record.seconds.values()),
        ap=result_of(run).get("AP") if done else None,
        reason=record.reason,
    )


class LocalJob:
    """A run on this machine, with an ``environment`` that is added to that of this process.

    Its commands run on ``device``, as ``select_device`` takes it, a training in ``gpus`` processes.
    """

    def __init__(
        self,
        run: Run,
        environment: Mapping[str, str] | None = None,
        *,
        device: str = "auto",
        gpus: int = 1,
    ) -> None:
        self.run = run
        self._environment = {**os.environ, **(environment or {})}
        make_folder(run.folder)
        old = read_record(run.folder)
        here = {
            **machine(),
            "device": device_name(select_device(device)),
            "processes": str(1 if run.is_timing else gpus),
            "threads": self._environment.get("OMP_NUM_THREADS", str(core_count())),
        }
        self._record = replace(
            old,
            state="waiting",
            reason="",
            digest=run.digest,
            cfg_options=run.cfg_options,
            images=run.images,
            machines=old.machines if here in old.machines else (*old.machines, here),
        )
        self._record.write(run.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._step: Step | None = None
        self._before = 0.0
        self._unsaved = 0.0  # seconds that are not in the record yet
        self._stopping = False
        self._patience = time.monotonic() + WAIT_FOR_LOCK

    def poll(self) -> Status:
        """Returns how far the run is, and begins its next command where one has ended."""
        if self._process is not None:
            code = self._process.poll()
            self._note_time(force=code is not None)
            if code is None:
                return self._status(self._step.name if self._step else "waiting")
            self._process = None
            if code:
                return self._ended_early(code)
            self._finish_step()
        if self._stopping:
            return self._status("stopped")
        step = self.run.next_step(self._record)
        if step is None:
            _remove_checkpoints(self.run.folder)
            self._save(state="done")
            return self._status("done")
        if time.monotonic() < self._patience and is_locked(self.run.folder):
            return self._status("waiting")
        if changed := _change_of_config(self.run):
            self._save(state="failed", reason=changed)
            return self._status("failed")
        self._begin(step)
        return self._status(step.name)

    def stop(self) -> None:
        """Sends SIGTERM: a training saves a checkpoint."""
        self._stopping = True
        if self._process is not None:
            self._process.terminate()

    def _begin(self, step: Step) -> None:
        arguments = list(step.arguments)
        if step.trained:
            checkpoint = newest_checkpoint(self.run.folder)
            arguments.insert(2, str(checkpoint or self.run.folder))
        command = [sys.executable, "-c", BOOT, str(os.getpid()), *arguments]
        draft = _draft(self.run, step) if step.prints else None
        if draft:
            draft.unlink(missing_ok=True)  # of a run that was killed; or a link to elsewhere
        with (
            self.run.log.open("ab") as logged,
            draft.open("xb") if draft else open(os.devnull, "wb") as printed,
        ):
            logged.write(f"\n$ fldet {' '.join(arguments)}\n".encode())
            logged.flush()
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=printed if step.prints else logged,
                stderr=logged,
            )
        self._step = step
        self._started = time.time()
        self._before = time.monotonic()

    def _ended_early(self, code: int) -> Status:
        if self._stopping or code in STOPPED:
            return self._status("stopped")
        bad = [
            path
            for path in self.run.folder.glob("nonfinite_iter_*.pth")
            if path.stat().st_mtime >= self._started - 1
        ]
        said = _last_error(self.run.log)
        if bad:
            self._save(state="diverged", reason=said or bad[0].name)
            return self._status("diverged")
        name = self._step.name if self._step else ""
        self._save(state="failed", reason=f"{name} ended with exit code {code}: {said}")
        return self._status("failed")

    def _finish_step(self) -> None:
        if self._step:
            if self._step.prints:
                _draft(self.run, self._step).replace(self.run.folder / self._step.makes)
            self._save(steps=tuple(dict.fromkeys((*self._record.steps, self._step.name))))

    def _save(self, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        self._record.write(self.run.folder)

    def _note_time(self, *, force: bool) -> None:
        now = time.monotonic()
        if now - self._before < PAUSED:
            self._unsaved += now - self._before
        self._before = now
        if self._step and (force or self._unsaved > WRITE_RECORD):
            spent = self._record.seconds.get(self._step.name, 0.0) + self._unsaved
            self._unsaved = 0.0
            self._save(seconds={**self._record.seconds, self._step.name: round(spent, 2)})

    def _status(self, state: str) -> Status:
        iteration, iterations = progress_in(self.run.log) if state == "train" else (0, 0)
        try:
            ap = result_of(self.run).get("AP") if state == "done" else None
        except DataError as error:
            self._save(state="failed", reason=error.message)
            state, ap = "failed", None
        return Status(
            self.run,
            state,
            iteration,
            iterations,
            sum(self._record.seconds.values()) + self._unsaved,
            ap,
            self._record.reason,
        )


def _change_of_config(run: Run) -> str:
    """Returns what is wrong where a config is another one than when the runs were planned."""
    try:
        if digest_of(run) == run.digest:
            return ""
    except ConfigError as error:
        return error.message
    return f"{run.config} or a file below it has changed while the runs were done"


def _remove_checkpoints(folder: Path) -> None:
    """Leaves the last one, which was tested: a table is dozens of runs."""
    for path in (*checkpoints(folder)[1:], *folder.glob("best_*.pth")):
        path.unlink(missing_ok=True)


def _draft(run: Run, step: Step) -> Path:
    return run.folder / f".{step.makes}.part"


def progress_in(path: Path) -> tuple[int, int]:
    """Returns (iteration, iterations) of the training that a log tells of, zeros at its start."""
    found = re.findall(r"^iter (\d+)/(\d+)", _last_command(path), re.MULTILINE)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def _last_error(path: Path) -> str:
    """Returns the last line of the last command in a log that says what went wrong.

    The last line of all if none does.
    """
    lines = [line for line in _last_command(path).splitlines() if line.strip()]
    said = [line for line in lines if re.match(r"(Error: |\w*(Error|Exception)\b)", line)]
    return (said or lines or [""])[-1].removeprefix("Error: ")


def _last_command(path: Path, size: int = 8192) -> str:
    """Returns what the last command in a log said, at most so many bytes from the end."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text.rpartition("\n$ fldet ")[2]


def local_jobs(jobs: int, *, device: str = "auto", gpus: int = 1) -> Callable[[Run, int], LocalJob]:
    """Returns what begins a run in one of so many slots of this machine, for ``run_all``.

    All run on ``device``, as ``LocalJob`` takes it; a timing has all cores.
    """
    devices = [] if ":" in device else visible_devices()  # cuda:1 is that of all runs

    def start(run: Run, slot: int) -> LocalJob:
        environment = job_environment(slot, 1 if run.is_timing else jobs, gpus, devices)
        return LocalJob(run, environment, device=device, gpus=gpus)

    return start


def job_environment(slot: int, jobs: int, gpus: int, devices: Sequence[str]) -> dict[str, str]:
    """Returns what the processes of a slot are told: threads, and which GPUs are theirs.

    The cores are divided among the slots. A run has ``gpus`` of the ``devices`` of this machine,
    which are named as in ``CUDA_VISIBLE_DEVICES``.
    """
    threads = max(1, core_count() // (jobs * gpus))
    found = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if len(devices) > gpus:
        mine = [devices[(slot * gpus + index) % len(devices)] for index in range(gpus)]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return found


def visible_devices() -> list[str]:
    """Returns the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]
