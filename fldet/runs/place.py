"""Where runs are done: on this machine, or on a cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fldet.config.overrides import parse_override
from fldet.errors import UsageError
from fldet.runs.run import Run
from fldet.runs.runner import Job, local_jobs

EXECUTORS = ("local", "slurm")


@dataclass(frozen=True)
class Place:
    """Where runs are done, and how many at a time.

    Attributes:
        executor: of ``EXECUTORS``.
        jobs: runs at a time; None is one here, and all of them on a cluster.
        cluster_options: parameters of submitit, each as ``slurm_partition=gpu``.
        device: as ``LocalJob`` takes it.
        gpus: processes of each training.
    """

    executor: str = "local"
    jobs: int | None = None
    cluster_options: tuple[str, ...] = ()
    device: str = "auto"
    gpus: int = 1

    def check(self) -> None:
        """Raises UsageError for an unknown executor, or options of a cluster without one."""
        if self.executor not in EXECUTORS:
            raise UsageError(f"unknown executor {self.executor!r}", expected=" or ".join(EXECUTORS))
        if self.cluster_options and self.executor == "local":
            raise UsageError("--cluster-options without a cluster", expected="--executor slurm")

    def count(self, runs: int) -> int:
        """Returns how many of so many runs are done at a time."""
        return self.jobs or (1 if self.executor == "local" else runs)

    def starter(self, folder: Path, runs: int) -> Callable[[Run, int], Job]:
        """Returns what begins one of so many runs, for ``run_all``.

        The scripts and logs of a cluster go to ``folder``.
        """
        if self.executor == "local":
            return local_jobs(self.count(runs), device=self.device, gpus=self.gpus)
        from fldet.runs.cluster import Cluster

        parameters = dict(map(parse_override, self.cluster_options))
        return Cluster(folder, parameters, device=self.device, gpus=self.gpus).start
