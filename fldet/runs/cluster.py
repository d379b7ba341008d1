"""The runs of the paper's tables on a Slurm cluster, through submitit."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.engine.lock import drop_lock_of_another_machine
from fldet.errors import DataError, UnavailableError, UsageError, shorten
from fldet.files import make_folder, write_atomically
from fldet.results import read_stored
from fldet.runs.run import Run, read_record, result_of
from fldet.runs.runner import LocalJob, Status, job_environment, progress_in

JOB = "cluster_job.json"
DEFAULTS: dict[str, Any] = {"name": "fldet", "timeout_min": 24 * 60}


class Cluster:
    """Where runs are sent to: Slurm, or with the kind ``local`` processes of this machine.

    All machines see ``folder``, for submitit's scripts and logs. ``options`` are those of
    ``submitit.AutoExecutor.update_parameters``: ``slurm_partition``, ``gpus_per_node``,
    ``timeout_min``.

    Raises:
        UnavailableError: submitit is not installed, or there is no Slurm.
        UsageError: an option that submitit does not know.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any] | None = None,
        kind: str = "slurm",
        *,
        device: str = "auto",
        gpus: int = 1,
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UnavailableError(
                "--executor slurm needs the package submitit",
                expected="the extra of the name cluster",
                hint="in a clone: pip install -c requirements/constraints.txt -e '.[cluster]'",
            ) from error
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=kind)
        except RuntimeError as error:
            raise UnavailableError(
                f"no Slurm here: {error}", expected="a machine that has sbatch"
            ) from error
        try:
            self._executor.update_parameters(**{**DEFAULTS, **(options or {})})
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"submitit does not take these options: {error}") from error
        kinds = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
        self._job_class = kinds[kind]
        self._folder = folder
        self._device = device
        self._gpus = gpus

    def start(self, run: Run, _slot: int) -> "ClusterJob":
        """Sends a run, or finds the job again that an earlier runner has sent."""
        make_folder(run.folder)
        path = run.folder / JOB
        if path.is_file():
            job = self._job_class(folder=self._folder, job_id=read_job(path))
            if not job.done():
                return ClusterJob(run, job)
        job = self._executor.submit(ClusterRun(run, self._device, self._gpus))
        write_atomically(path, json.dumps({"id": job.job_id}))
        return ClusterJob(run, job)


def read_job(path: Path) -> str:
    """Returns the id of the job that a run was sent away as; a DataError where it is none."""
    what, hint = "note of a job", f"remove {path}"
    number: str = read_stored(path, str, "id", what=what, hint=hint)
    if not re.fullmatch(r"\w{1,100}", number):  # submitit makes names of files of it
        raise DataError(f"{path} is no {what}: id is {shorten(number)}", hint=hint)
    return number


@dataclass(frozen=True)
class ClusterRun:
    """What a job of the cluster does: one run, from its first step that is not done."""

    run: Run
    device: str = "auto"
    gpus: int = 1

    def __call__(self) -> str:
        """Returns how the run ended."""
        # A run has one job at a time: where it was killed with its machine, its lock is stale.
        drop_lock_of_another_machine(self.run.folder)
        environment = job_environment(0, 1, self.gpus, [])
        job = LocalJob(self.run, environment, device=self.device, gpus=self.gpus)
        while (state := job.poll().state) not in ("done", "diverged", "failed", "stopped"):
            time.sleep(1)
        return state

    def checkpoint(self) -> Any:
        """Returns what goes on after the time limit of the cluster; submitit asks for it."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@dataclass
class ClusterJob:
    """A run on the cluster, watched through its files."""

    run: Run
    job: Any  # of submitit
    detached: bool = False

    def poll(self) -> Status:
        """Returns how far the run is."""
        over = self.job.done()
        record = read_record(self.run.folder)
        seconds = sum(record.seconds.values())
        if over and record.state == "done":
            ap = result_of(self.run).get("AP")
            return Status(self.run, "done", seconds=seconds, ap=ap)
        if over and record.state in ("diverged", "failed"):
            return Status(self.run, record.state, seconds=seconds, reason=record.reason)
        if over:
            job = self.job
            reason = f"the job {job.job_id} ended as {job.state}; {job.paths.stderr}"
            return Status(self.run, "failed", seconds=seconds, reason=reason)
        if self.detached:
            return Status(self.run, "stopped", seconds=seconds)
        step = self.run.next_step(record)
        state = step.name if step and record.digest else "queued"
        return Status(self.run, state, *progress_in(self.run.log), seconds=seconds)

    def stop(self) -> None:
        """Watches no longer; the job goes on, and the next runner finds it."""
        self.detached = True
