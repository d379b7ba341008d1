"""Doing a cross-validation: a training and a test for each fold, then what they have found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from fldet.config.load import load_config
from fldet.data.folds.split import SplitOptions
from fldet.engine.lock import locked
from fldet.errors import StoppedError
from fldet.evaluation.detections import load_detections
from fldet.evaluation.out_of_fold import read_out_of_fold, write_out_of_fold
from fldet.files import write_atomically
from fldet.folds.picture import plot_folds
from fldet.folds.plan import Begun, begin, detections_of, training_run, truth_of_folds
from fldet.folds.result import CrossValidation, summarize
from fldet.results import to_json
from fldet.runs.place import Place
from fldet.runs.runner import Status, run_all

REPORT, PICTURE = "cross_validation.json", "cross_validation"

Watch = Callable[[Sequence[Status]], None]


@dataclass(frozen=True)
class Settings:
    """How a cross-validation is done.

    Attributes:
        division: how the training images are divided, or a folder that ``fldet data split`` wrote.
        place: where the trainings run, and how many at a time.
    """

    division: SplitOptions | Path = field(default_factory=SplitOptions)
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class WrittenCrossValidation:
    """A cross-validation, and what it has written."""

    folder: Path
    runs: tuple[Status, ...]  # how the training and test of each fold ended
    result: CrossValidation | None  # None where one has failed or diverged
    files: tuple[Path, ...]  # ground truth, detections, figures and picture of all folds


def cross_validate(
    config: str | Path | Config,
    settings: Settings,
    work_dir: Path,
    *,
    watch: Watch = lambda _: None,
) -> WrittenCrossValidation:
    """Trains without each fold of the training images in turn, and tests on it.

    Called again, it goes on: what is done stays, a training under way goes on from its checkpoint.
    The newest weights of a training are tested, not those that were best on the fold. A fold that
    fails does not stop the others.

    Args:
        config: of the training; its data for validation and test are not used, but for the
            images that its training data's file has too.
        settings: folds and place.
        work_dir: folder of the cross-validation; ``fldet.data.folds.files`` says what is in it.
        watch: is told how far all runs are, several times a second.

    Raises:
        UsageError: the settings are not valid or not those that the folder was begun with, or
            another process works in it.
        ConfigError, DataError: data or the config cannot be used.
        StoppedError: a signal has ended it; the same call goes on.
    """
    settings.place.check()
    cfg = config if isinstance(config, Config) else load_config(config)
    with locked(work_dir):
        begun = begin(cfg, settings.division, work_dir)
        place = settings.place
        runs = [
            training_run(begun, number, place.device, place.gpus) for number in begun.folds.numbers
        ]
        start = place.starter(begun.folder / "cluster", len(runs))
        ended, received = run_all(runs, jobs=place.count(len(runs)), start=start, watch=watch)
        if received:
            raise StoppedError(
                "stopped; what was done is kept",
                hint="the same command goes on",
                exit_code=128 + received,
            )
        if any(one.state != "done" for one in ended):
            return WrittenCrossValidation(begun.folder, tuple(ended), None, ())
        result, files = _collect(begun, [run.folder for run in runs])
        return WrittenCrossValidation(begun.folder, tuple(ended), result, tuple(files))


def _collect(begun: Begun, work_dirs: Sequence[Path]) -> tuple[CrossValidation, list[Path]]:
    """Returns what all folds have found together, and the files that it is written into."""
    detections = [one for path in work_dirs for one in load_detections(detections_of(path))]
    files = write_out_of_fold(begun.folder, truth_of_folds(begun), detections)
    result = summarize(read_out_of_fold(begun.folder))
    report = write_atomically(begun.folder / REPORT, to_json("cross-validate", result))
    return result, [*files, report, *plot_folds(result, begun.folder / PICTURE)]
