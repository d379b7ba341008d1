"""The scalars of training runs, as their logs have them."""

import itertools
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fldet.errors import DataError, shorten
from fldet.files import GIB, MIB, parse_json, read_lines, require_work_dir
from fldet.text import printable

log = logging.getLogger("fldet")

_MOST_STEPS = 2**53  # above, numbers on an axis are no longer whole
_LARGEST, _SMALLEST = 1e100, 1e-100  # what is larger counts as infinite, what is smaller as 0
_MOST_NUMBERS = 20_000_000  # of a run, at about 100 bytes; 10 at each of two million iterations
_LONGEST_NAME = 100  # of a scalar; the rest is cut off

MOST_DRAWN = 20  # losses in a figure

# MMDetection's own metric calls them otherwise.
_AP = {"AP": "AP", "AP50": "AP50", "AP75": "AP75"}
_AP |= {"bbox_mAP": "AP", "bbox_mAP_50": "AP50", "bbox_mAP_75": "AP75"}


@dataclass(frozen=True)
class Series:
    """One scalar of a run: ``values``, which may be NaN or infinite, at ``iterations``."""

    iterations: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class TrainingLog:
    """The scalars of a run."""

    name: str  # of the work dir, or its path where another has the same name
    starts: int  # how often the run was started, resumed starts counted in
    # by the name in the log: ``loss`` and its parts, ``lr``, ``time`` and ``data_time`` (seconds of
    # an iteration, and of waiting for its data), ...
    train: dict[str, Series]
    # ``AP``, ``AP50`` and ``AP75`` in [0, 1]; ``loss`` and its parts if they were computed
    val: dict[str, Series]


def loss_parts(scalars: Mapping[str, Series]) -> dict[str, Series]:
    """Returns the losses among scalars, in the order of the log: their sum first."""
    return {name: one for name, one in scalars.items() if name.startswith("loss")}


def drawn_losses(scalars: Mapping[str, Series]) -> dict[str, Series]:
    """Returns the losses that a figure has room for: the first so many."""
    return dict(itertools.islice(loss_parts(scalars).items(), MOST_DRAWN))


def read_log(work_dir: Path, *, name: str = "") -> TrainingLog:
    """Returns the scalars of all starts of a run as one.

    A start that was resumed goes on from a checkpoint: what earlier starts logged from its first
    logged iteration onwards is dropped. The work dir has a folder for each start, as MMEngine makes
    them, or is one such folder.

    Raises:
        DataError: there is no such folder, it holds no scalars of a training, or more than 20
            million numbers, or a line is broken that others follow. Broken lines at the end are
            skipped with a warning.
    """
    require_work_dir(work_dir)
    starts = 0
    train: list[tuple[int, dict[str, float]]] = []
    val: list[tuple[int, dict[str, float]]] = []
    for file in _scalar_files(work_dir):
        records = _few_records(file, sum(len(one) for _, one in (*train, *val)))
        starts += bool(records)
        new_train = [(int(one["step"]), one) for one in records if "iter" in one]
        first = new_train[0][0] if new_train else math.inf
        train = [point for point in train if point[0] < first] + new_train
        val = [point for point in val if point[0] < first] + [*_validations(records)]
    if not train:
        raise DataError(
            f"no scalars of a training in {work_dir}",
            expected="TIME/vis_data/scalars.json in it, with at least one logged iteration",
            hint="a run logs every 50 iterations: --cfg-options default_hooks.logger.interval=10",
        )
    return TrainingLog(name or work_dir.resolve().name, starts, _series(train), _series(val))


def _scalar_files(work_dir: Path) -> Iterator[Path]:
    """Yields one file for each start, the earliest first; MMEngine may have written copies."""
    for folder in (work_dir, *sorted(path for path in work_dir.iterdir() if path.is_dir())):
        copies = sorted(folder.glob("vis_data/*.json"))
        names = (Path("vis_data", "scalars.json"), Path("vis_data", f"{folder.name}.json"))
        choice = [*(folder / name for name in names), *copies, folder / f"{folder.name}.json"]
        yield from [path for path in choice if path.is_file()][:1]


def _few_records(file: Path, count: int) -> list[dict[str, float]]:
    """Returns the records of a file, where the numbers of the run so far are so many."""
    records = []
    for record in _records(file):
        count += len(record)
        if count > _MOST_NUMBERS:
            raise DataError(
                f"{file}: more than {_MOST_NUMBERS:,} numbers in the log of a run",
                expected="fewer logged iterations",
                hint="keep every tenth of them: awk '!/\"iter\"/ || NR % 10 == 0'",
            )
        records.append(record)
    return records


def _records(file: Path) -> Iterator[dict[str, float]]:
    """Yields the numbers of each line that belongs to a training; a test's figures have no step."""
    broken, text = 0, ""  # a kill cuts the last line off, a power loss leaves anything
    for number, data in enumerate(read_lines(file, "log", most=GIB, longest=MIB), start=1):
        line = data.decode(errors="replace")
        if not line.strip():
            continue
        try:
            record = parse_json(line, str(file))
            if not isinstance(record, dict) or not _is_step(record.get("step", 0)):
                raise DataError(str(file))
        except DataError:
            if not broken:
                broken, text = number, shorten(line.strip(), 60)
            continue
        if broken:
            raise DataError(
                f"{file}, line {broken} is broken: {text}",
                expected="one JSON object with an integer 'step', as MMEngine writes them",
            )
        if "step" in record:
            yield _numbers(record)
    if broken:
        log.warning("%s: from line %d on it is cut off or damaged, and was skipped", file, broken)


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STEPS


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line by plain names: no phase in front, AP as COCO calls it."""
    plain: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, (int, float)):
            name = key.removeprefix("train/").removeprefix("val/").removeprefix("val/")
            plain[_plain_name(_AP.get(name.rpartition("/")[2], name))] = _bounded(value)
    return plain


def _plain_name(name: str) -> str:
    """Returns a name that can be printed and drawn; the same text for the same name."""
    text = printable(name[: _LONGEST_NAME + 1])
    return sys.intern(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}...")


def _bounded(value: float) -> float:
    """Returns a number with which figures can be computed and drawn, or one that is not finite."""
    if abs(value) > _LARGEST:
        return math.inf if value > 0 else -math.inf
    return 0.0 if abs(value) < _SMALLEST else value


def _validations(records: Sequence[dict[str, float]]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields each validation with its iteration.

    MMEngine writes the epoch as the step by default, 0 where there are none; then the iteration is
    that of the training line before.
    """
    last = next((int(one["step"]) for one in records if "iter" in one), 0)
    for one in records:
        if "iter" in one:
            last = int(one["step"])
        else:
            yield max(last, int(one["step"])), one


def _series(points: Sequence[tuple[int, dict[str, float]]]) -> dict[str, Series]:
    names = dict.fromkeys(name for _, record in points for name in record)
    return {
        name: Series(
            tuple(step for step, record in points if name in record),
            tuple(float(record[name]) for _, record in points if name in record),
        )
        for name in names
    }
