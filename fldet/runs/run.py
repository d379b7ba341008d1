"""A run: a few commands of ``fldet`` in a folder of its own, and what is known about it.

The folder holds what ``fldet train`` and ``fldet test`` leave, ``log.txt`` with what they said, and
``run.json`` with how far the run is.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmengine.config import Config

from fldet.config.load import load_config, to_plain
from fldet.errors import UsageError
from fldet.files import write_atomically
from fldet.results import Milliseconds, Seconds, read_stored, to_jsonable
from fldet.runs.outcome import RESULT, read_outcome

BENCHMARK = "benchmark.json"
LOG = "log.txt"
TIMING = "timing"  # the name of the step
OF_CLASS = "AP of "  # before the name of a class, its AP among what ``result_of`` returns

# Options that runs of 0.2.0 were begun without, with the value by which a config is as theirs.
YOUNGER = {"decoder": "exact"}

State = Literal["waiting", "done", "diverged", "failed"]


@dataclass(frozen=True)
class Step:
    """One command of a run."""

    name: str  # ``train``, ``test`` or ``timing``
    # of ``fldet``; for ``test`` and ``timing`` the checkpoint follows the config where ``trained``
    arguments: tuple[str, ...]
    trained: bool = False  # whether the command needs the last checkpoint of the run's folder
    makes: str = ""  # what the command leaves in the run's folder, "" where that is not one file
    prints: bool = False  # the command prints that file on stdout


@dataclass(frozen=True)
class Run:
    """A training with its test, or a timing."""

    # what it is of: a row of a table, ``table1b 2/.25``, several where configs are equal; a fold
    rows: tuple[str, ...]
    seed: int  # of all random numbers
    config: Path
    folder: Path  # the work dir
    digest: str  # of the resolved config; another one means another experiment
    steps: tuple[Step, ...]  # in order
    cfg_options: tuple[str, ...] = ()  # overrides of the config
    # in a step of the training, by all processes; None for a timing, or where unknown
    images: int | None = None

    @property
    def is_timing(self) -> bool:
        """Whether nothing is trained or tested."""
        return all(step.name == TIMING for step in self.steps)

    def part(self, *, timing: bool) -> "Run":
        """Returns the same with its timing alone, or without it."""
        kept = tuple(step for step in self.steps if (step.name == TIMING) == timing)
        return dataclasses.replace(self, steps=kept)

    @property
    def name(self) -> str:
        """The last two parts of the folder, ``fl_gamma_2/seed_0``."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def log(self) -> Path:
        """What the commands said."""
        return self.folder / LOG

    def next_step(self, record: "Record") -> Step | None:
        """Returns the first step that is not done, or whose file is gone; None if all are."""
        for step in self.steps:
            if step.name not in record.steps or not (self.folder / step.makes).exists():
                return step
        return None


@dataclass(frozen=True)
class Record:
    """What ``run.json`` says about a run."""

    state: State = "waiting"  # ``waiting`` until it has ended in one of the other ways
    digest: str = ""  # of the config that it was begun with
    cfg_options: tuple[str, ...] = ()  # the overrides among it
    steps: tuple[str, ...] = ()  # names of the commands that are done
    # wall time by step, over all attempts, without pauses of the runner, to within some seconds
    # where one was killed
    seconds: dict[str, Seconds] = dataclasses.field(default_factory=dict)
    reason: str = ""  # of a run that failed or diverged, one line
    # processor, versions, device, processes and threads of all attempts, each once
    machines: tuple[dict[str, str], ...] = ()
    images: int | None = None  # in a step of the training, None for a timing

    def write(self, folder: Path) -> None:
        """Writes it into the folder of its run."""
        write_atomically(folder / "run.json", json.dumps(to_jsonable(self), indent=1))


def read_record(folder: Path) -> Record:
    """Returns the record in the folder of a run, a new one if it was never begun."""
    path = folder / "run.json"
    if not path.is_file():
        return Record()
    what, hint = "record of a run", f"run it anew: rm -r {folder}"
    read_stored(path, State, "state", what=what, hint=hint)  # without it, nothing is said
    return read_stored(path, Record, what=what, hint=hint)


def digest_of(run: Run) -> str:
    """Returns the digest of a run's config as its files are now."""
    return digest(load_config(run.config, run.cfg_options))


def digest(cfg: Config) -> str:
    """Returns 16 hexadecimal digits that stand for all of a resolved config."""
    values = to_plain(cfg)
    off = {key for key in YOUNGER if values.get(key) in (None, YOUNGER[key])}
    kept = {key: values[key] for key in values.keys() - off}
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_digest(run: Run, record: Record) -> None:
    """Raises UsageError unless a run was begun with its config as it is and its images a step."""
    hint = f"choose another --work-dir, or remove it: rm -r {run.folder}"
    if record.digest not in ("", run.digest):
        raise UsageError(
            f"{run.folder} was begun with another config than {run.config} is now",
            expected="the same config and --cfg-options",
            hint=hint,
        )
    if record.digest and run.images and record.images != run.images:
        raise UsageError(
            f"{run.folder} was begun with {record.images} images a step, not {run.images}",
            expected="the same --gpus",
            hint=hint,
        )


@dataclass(frozen=True)
class _Timed:
    """What is needed of a ``SpeedResult``."""

    median_ms: Milliseconds
    gflop: float | None = None
    parameters: int = 0


def result_of(run: Run) -> dict[str, Any]:
    """Returns what was measured: the test's figures in percent; of a timing ``ms`` and others.

    The AP of a class is ``AP of CLASS``.
    ``parameters`` are in millions; ``gflop`` and they are missing where they are not known.
    """
    found: dict[str, Any] = {}
    if (run.folder / RESULT).is_file():
        outcome = read_outcome(run.folder / RESULT)
        found |= outcome.figures
        found |= {f"{OF_CLASS}{name}": value for name, value in outcome.per_class.items()}
    path = run.folder / BENCHMARK
    if path.is_file():
        what = "output of fldet benchmark"
        speed = read_stored(path, _Timed, "result", what=what)
        found["ms"] = speed.median_ms
        if speed.gflop is not None:
            found["gflop"] = speed.gflop
        if speed.parameters:
            found["parameters"] = speed.parameters / 1e6
    return found
