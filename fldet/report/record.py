"""What a work dir tells of its run, for the page that ``fldet report`` writes."""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from fldet.analysis.errors.collect import TestedData, tested_data
from fldet.config.diff import Difference, diff_configs
from fldet.config.load import CONFIGS, find_config, load_config
from fldet.config.prepare import our_datasets, prepare_config, stated_classes
from fldet.engine.results import TestResult
from fldet.errors import DataError, FldetError
from fldet.evaluation.ground_truth import read_ground_truth, restrict
from fldet.files import KIB, is_model_folder, other_than_file, read_bytes, require_work_dir
from fldet.results import read_stored

# Filled in by every run, and no choice of its config.
_NOT_COMPARED = re.compile(
    r"(work_dir|launcher|resume|experiment_name|log_processor|visualizer|auto_scale_lr\.enable"
    r"|default_hooks\.logger\.type)\b"
)
_HEAD_OF_LOG = 64 * KIB  # that the environment stands in
_LOGGED = {  # by the names in the head of MMEngine's log
    "seed": "seed",
    "GPU 0": "device",
    "GPU number": "processes",
    "Python": "Python",
    "PyTorch": "PyTorch",
    "MMEngine": "MMEngine",
    "OpenCV": "OpenCV",
}


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run."""

    name: str  # of the work dir
    config: str  # name of its config without the ending, empty if it holds none
    compared_with: str  # the config that ``changes`` are relative to, empty if there is none
    changes: tuple[Difference, ...]  # what differs from it, A being that config
    # seed, device and versions by name, as the log of the training has them
    environment: dict[str, str]
    result: TestResult | None  # what ``fldet test`` wrote; None without
    version: str  # of fldet that wrote it, empty without
    tested: TestedData | None  # None without detections, or without their data
    # a sentence for everything that is missing, with the command that makes it
    gaps: tuple[str, ...]


def read_run(
    work_dir: Path, *, base: str | None = None, overrides: Sequence[str] = ()
) -> RunRecord:
    """Returns what a work dir tells of its run; what it lacks is a sentence in ``gaps``.

    ``base`` is the config to compare that of the run with, by default fldet's own of the same name;
    ``overrides`` are of the config of the test.

    Raises:
        DataError: there is no such folder.
        ConfigError: ``base`` cannot be loaded.
    """
    require_work_dir(work_dir)
    if is_model_folder(work_dir):  # whose config is not run
        raise DataError(
            f"{work_dir} is a packaged model; its card is README.md",
            expected="the work dir of a training",
        )
    gaps: list[str] = []
    config = _newest(work_dir.glob("*.py"))
    compared_with, changes = _changes(config, base, gaps)
    folders = (work_dir / "test", work_dir)
    folder = next((one for one in folders if (one / "result.json").exists()), None)
    result, version, tested = None, "", None
    if folder is None:
        gaps.append(f"No test: {_test_command(work_dir, config)} adds figures and the gallery.")
    else:
        missing = "No test"
        try:
            result, version = _read_result(folder / "result.json")
            missing = "No gallery"
            tested = _tested_data(folder, config, result, overrides)
        except FldetError as error:
            hint = error.hint or f"{_test_command(work_dir, config)} writes detections"
            gaps.append(f"{missing}: {error.message}. Hint: {hint}")
    return RunRecord(
        name=work_dir.resolve().name,
        config=config.stem if config else "",
        compared_with=compared_with,
        changes=changes,
        environment=_environment(work_dir, gaps),
        result=result,
        version=version,
        tested=tested,
        gaps=tuple(gaps),
    )


def _newest(files: Iterable[Path]) -> Path | None:
    """Returns the regular file that was written last; links to nothing are passed over."""
    times: dict[Path, float] = {}
    for file in files:
        with contextlib.suppress(OSError):
            if not other_than_file(facts := file.stat()):
                times[file] = facts.st_mtime
    return max(times, key=times.__getitem__, default=None)


def _test_command(work_dir: Path, config: Path | None) -> str:
    return f"fldet test {config or 'CONFIG'} {work_dir} --work-dir {work_dir / 'test'}"


# --- config --------------------------------------------------------------------------------------


def _changes(
    config: Path | None, base: str | None, gaps: list[str]
) -> tuple[str, tuple[Difference, ...]]:
    """Returns the config that the run's is compared with, and what differs."""
    if config is None:
        return "", ()
    own = next(CONFIGS.rglob(config.name), None) if base is None else find_config(base)
    if own is None:  # a config for data of one's own
        return "", ()
    name = str(own.relative_to(CONFIGS) if own.is_relative_to(CONFIGS) else own)
    stock = load_config(own)
    try:
        run = load_config(config)
        classes = _classes(run)
        if classes:  # fills in what a run fills in, so that it is no difference
            stock = prepare_config(stock, phases=(), classes=classes)
    except FldetError as error:
        gaps.append(f"No comparison with {name}: {error.message}.")
        return "", ()
    changes = tuple(one for one in diff_configs(stock, run) if not _NOT_COMPARED.match(one.key))
    return name, changes


def _classes(cfg: Config) -> tuple[str, ...]:
    for _, dataset in our_datasets(cfg.get("train_dataloader")):
        return stated_classes(dataset)
    return ()


# --- log -----------------------------------------------------------------------------------------


def _environment(work_dir: Path, gaps: list[str]) -> dict[str, str]:
    """Returns what the head of the newest log that can be read says of seed, device, versions."""
    head = ""
    for log in sorted(work_dir.glob("*/*.log"), reverse=True):
        try:
            head = read_bytes(log, "log", most=_HEAD_OF_LOG, cut=True).decode(errors="replace")
            break
        except DataError as error:
            gaps.append(f"Not read for seed and versions: {error.message}")
    found = {}
    for line in head.split("\n")[:200]:
        pair = re.fullmatch(r" {4}([^:]{1,40}): (.{1,200})", line)
        if pair and pair[1] in _LOGGED:
            found[_LOGGED[pair[1]]] = pair[2].split(" (")[0] if pair[1] == "Python" else pair[2]
        elif pair and pair[1] == "CUDA available" and pair[2] == "False":
            found["device"] = "CPU"
    return {name: found[name] for name in _LOGGED.values() if name in found}


# --- test ----------------------------------------------------------------------------------------


def _read_result(path: Path) -> tuple[TestResult, str]:
    """Returns what ``fldet test`` wrote, and its version."""
    what = "result of fldet test"
    if read_stored(path, str, "command", what=what) != "test":
        raise DataError(f"{path} is no {what}")
    result = read_stored(path, TestResult, "result", what=what)
    return result, read_stored(path, str, "version", what=what)


def _tested_data(
    folder: Path, config: Path | None, result: TestResult, overrides: Sequence[str]
) -> TestedData:
    """Returns detections and truth; a FldetError where one cannot be read or does not fit."""
    named = result.results_file
    places = [folder / named.name, named] if named else []  # it may have been moved
    file = next((one for one in places if os.path.isfile(one)), None)  # any name may stand there
    if file is None:
        raise DataError(f"the test in {folder} kept no detections")
    source = _newest(folder.glob("*.py")) or config
    if source is None:
        raise DataError(f"no config in {folder} that names the data of the test")
    cfg = prepare_config(load_config(source, overrides), phases=("test",))
    datasets = our_datasets(cfg.test_dataloader)
    if len(datasets) != 1:
        raise DataError(f"the test reads {len(datasets)} data sets of boxes")
    kind, dataset = datasets[0]
    content = kind.read_truth(dataset)
    truth = read_ground_truth(content)
    names = result.figures.per_class
    chosen = [key for key, name in truth.categories.items() if name in names]
    truth = restrict(truth, result.image_ids, chosen)
    return tested_data(
        truth, content, kind.annotation_file(dataset), kind.image_folder(dataset), file
    )
