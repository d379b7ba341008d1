"""What is compared, for how long, and the runs that it takes.

The work dir holds ``compare.json`` with the settings, ``configs/NAME.py`` with a contestant as it
was when it was named, ``NAME.py`` with its schedule, and ``runs/NAME/`` with its runs: ``pace``, a
few iterations that tell how many the minutes are worth; ``seed_0``, the training and its test;
``timing``.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fldet.analysis.log.read import read_log
from fldet.compare.models import MODELS, write_models
from fldet.config.load import find_config, format_config, load_config
from fldet.config.prepare import dataset_of, prepare_config
from fldet.config.text import literal
from fldet.devices import select_device
from fldet.errors import DataError, FldetError, UsageError
from fldet.files import write_atomically
from fldet.results import read_stored, to_jsonable
from fldet.runs.outcome import RESULT
from fldet.runs.run import BENCHMARK, Run, Step, digest

SETTINGS, DRAFTS = "compare.json", "configs"
MINUTES = 10.0  # of each training, by default
TIMED_IMAGES = 30

PACE_ITERATIONS = 30  # of which the first ten are not counted
_LOGGED = 10
_SHARE = 0.95  # of the minutes, that iterations are planned for
_SHARE_OF_VALIDATION = 0.25  # of the minutes at most
_MOST_VALIDATIONS, _BETWEEN_VALIDATIONS = 8, 50  # iterations between two, where they are given
_WARM_UP = 50  # iterations
_SMALLEST_SIDE = 32  # pixels


@dataclass(frozen=True)
class Settings:
    """What is compared; all contestants have the same budget.

    Attributes:
        data: a data set for the ``models``; None if there are configs only.
        models: names of ``fldet.compare.MODELS``.
        configs: of contestants of one's own, each with its own data.
        minutes: of each training, validations included but for the last one.
        iterations: of each training instead; ``minutes`` is not looked at then.
        size: longer and shorter side of the images of ``data``, in pixels; None chooses.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    """

    data: Path | None = None
    models: tuple[str, ...] = tuple(MODELS)
    configs: tuple[str, ...] = ()
    minutes: float = MINUTES
    iterations: int | None = None
    size: tuple[int, int] | None = None
    device: str = "auto"

    @property
    def budget(self) -> str:
        """The budget of a contestant in words."""
        return f"{self.iterations:,} iterations" if self.iterations else f"{self.minutes:g} min"


@dataclass(frozen=True)
class Pace:
    """Seconds that a contestant takes on this machine."""

    iteration: float
    validation: float


@dataclass(frozen=True)
class Schedule:
    """A training: so many iterations, a validation after every so many of them."""

    iterations: int
    val_interval: int
    minutes: float | None = None  # at which it ends even if iterations are left


@dataclass(frozen=True)
class _Record:
    """What a work dir was begun with."""

    settings: Settings
    tested: str = ""  # stands for the images, boxes and classes of the test


def begin(settings: Settings, work_dir: Path) -> tuple[Settings, dict[str, Path]]:
    """Returns the settings of a work dir, and the config of each contestant without its budget.

    Contestants that are new are added to those of earlier calls. Where this cannot be, the work dir
    is left as it was.

    Raises:
        UsageError: the settings are not valid, the work dir was begun with others, or contestants
            are tested on different images.
        ConfigError, DataError: the record, a config or the data set cannot be used.
    """
    file, folder = work_dir / SETTINGS, work_dir / DRAFTS
    before = file.read_bytes() if file.exists() else None
    if before is None and folder.exists():
        raise UsageError(
            f"{work_dir} has a folder {DRAFTS} that is of no comparison",
            expected="an empty work dir, or that of a comparison",
            hint="choose another --work-dir",
        )
    old = _read_record(file) if before else None
    agreed = _agreed(settings, old.settings if old else None, work_dir)
    kept = set(folder.glob("*.py"))
    write_atomically(file, json.dumps(to_jsonable(_Record(agreed, old.tested if old else ""))))
    try:
        drafts = _write_drafts(agreed, settings.configs, work_dir)
        tested = _tested_on_the_same(drafts)
        if old and old.tested not in ("", tested):
            raise UsageError(
                f"the images or boxes of the test have changed since {work_dir} was begun",
                expected="the same images for all",
                hint=f"choose another --work-dir, or remove it: rm -r {work_dir}",
            )
        write_atomically(file, json.dumps(to_jsonable(_Record(agreed, tested)), indent=1))
    except FldetError:
        for path in set(folder.glob("*.py")) - kept:
            path.unlink()
        if before is None:
            file.unlink()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            write_atomically(file, before)
        raise
    return agreed, drafts


def _read_record(file: Path) -> _Record:
    hint = f"choose another --work-dir, or remove it: rm -r {file.parent}"
    found: _Record = read_stored(file, _Record, what="record of fldet compare", hint=hint)
    return found


def _agreed(settings: Settings, old: Settings | None, work_dir: Path) -> Settings:
    """Returns valid settings, with the contestants of earlier calls."""
    _check(settings)
    configs = tuple(str(find_config(one)) for one in settings.configs)
    for one in configs:
        if Path(one).parent.resolve() == work_dir.resolve():
            raise UsageError(
                f"{one} lies in the work dir, whose configs are written by fldet compare",
                expected="a config outside of it",
                hint="copy it to another folder, under another name",
            )
    settings = replace(
        settings,
        data=settings.data.resolve() if settings.data else None,
        models=tuple(dict.fromkeys(settings.models)) if settings.data else (),
        configs=configs,
    )
    if old:
        _require_same(old, settings, work_dir)
        settings = replace(
            settings,
            data=old.data,
            models=tuple(dict.fromkeys((*old.models, *settings.models))),
            configs=tuple(dict.fromkeys((*old.configs, *settings.configs))),
        )
    names = [*settings.models, *(Path(one).stem for one in settings.configs)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"two contestants are called {twice.pop()}", hint="rename one of the config files"
        )
    return settings


def _check(settings: Settings) -> None:
    if settings.data is None and not settings.configs:
        raise UsageError("nothing to compare", expected="a data set, or configs")
    if not settings.models and settings.data:
        raise UsageError("no model for the data set", expected="one or more")
    if not 0 < settings.minutes < math.inf:
        raise UsageError(f"{settings.minutes:g} minutes are no budget", expected="more than 0")
    if settings.iterations is not None and settings.iterations < 1:
        raise UsageError(f"{settings.iterations} iterations are no budget", expected="1 or more")
    if settings.size is not None and min(settings.size) < _SMALLEST_SIDE:
        raise UsageError(
            f"images of {settings.size[0]}x{settings.size[1]} are too small",
            expected=f"sides of {_SMALLEST_SIDE} pixels or more",
        )
    select_device(settings.device)  # an error now, not after it was noted


def _require_same(old: Settings, new: Settings, work_dir: Path) -> None:
    """Raises UsageError where two calls have different settings that all contestants share."""
    for name in ("data", "budget", "size", "device"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now and not (name == "data" and now is None):
            raise UsageError(
                f"{work_dir} was begun with another {name}: {before}, not {now}",
                expected="the same for all that are compared; models and configs may be added",
                hint=f"choose another --work-dir, or remove it: rm -r {work_dir}",
            )


def _write_drafts(settings: Settings, named: Sequence[str], work_dir: Path) -> dict[str, Path]:
    """Writes the configs of contestants that are new; returns those of all by name.

    Args:
        settings: with the contestants of all calls.
        named: configs of this call, which must be what they were in earlier ones.
        work_dir: of the comparison.
    """
    folder, drafts = work_dir / DRAFTS, {}
    given = {str(find_config(name)) for name in named}
    if settings.data:
        drafts = write_models(settings.models, settings.data, settings.size, folder)
    for one in settings.configs:
        path = drafts[Path(one).stem] = folder / Path(one).name
        if path.exists() and one not in given:
            continue
        text = format_config(load_config(one))
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{one} has changed since it was compared",
                hint="copy it to another name, and both are compared",
            )
        write_atomically(path, text)
    return drafts


def _tested_on_the_same(drafts: dict[str, Path]) -> str:
    """Returns what stands for the images, boxes and classes that all are tested on."""
    tested = {name: _tested_on(load_config(path)) for name, path in drafts.items()}
    first, (images, content) = next(iter(tested.items()))
    for name, (others, other_content) in tested.items():
        if other_content != content:
            same = ", with other classes, images or boxes" if others == images else ""
            raise UsageError(
                f"{first} is tested on {images}, {name} on {others}{same}",
                expected="the same images, boxes and classes for all",
            )
    return content


def _tested_on(cfg: Any) -> tuple[str, str]:
    """Returns which images a config is tested on, in words, and a digest of what counts."""
    if not cfg.get("val_dataloader"):
        raise DataError(f"{cfg.filename} has no images to validate on", expected="val_dataloader")
    logging.disable(logging.INFO)  # what is filled in is said when it is trained
    try:
        kind, dataset = dataset_of(prepare_config(cfg, phases=("test",)), "test")
    finally:
        logging.disable(logging.NOTSET)
    part = dataset.get("split")
    words = f"{kind.annotation_file(dataset).resolve()}{f', {part}' if part else ''}"
    classes = sorted(dataset.get("metainfo", {}).get("classes", ()))
    counted = [kind.read_truth(dataset), classes, dataset.get("indices")]
    text = json.dumps(counted, sort_keys=True, default=str)
    return words, hashlib.sha256(text.encode()).hexdigest()


# --- budget --------------------------------------------------------------------------------------


def schedule_of(settings: Settings, pace: Pace | None) -> Schedule:
    """Returns the schedule that the budget is worth at a pace; None where it is iterations."""
    if settings.iterations or pace is None:
        iterations = settings.iterations or 1
        count = min(max(iterations // _BETWEEN_VALIDATIONS, 1), _MOST_VALIDATIONS)
        return Schedule(iterations, math.ceil(iterations / count))
    seconds = _SHARE * 60 * settings.minutes
    affordable = int(_SHARE_OF_VALIDATION * seconds / pace.validation) if pace.validation else 0
    validations = min(max(affordable, 1), _MOST_VALIDATIONS)
    inside = (validations - 1) * pace.validation  # the last one comes on top of the minutes
    iterations = max(1, int((seconds - inside) / pace.iteration))
    return Schedule(iterations, math.ceil(iterations / validations), settings.minutes)


def read_pace(work_dir: Path, config: Path) -> Pace:
    """Returns how fast the run ``pace`` in a work dir was."""
    log = read_log(work_dir)
    times = log.train["time"].values
    counted = times[1:] or times  # the first logged ones have the start of the loaders in them
    cfg = load_config(config)
    kind, dataset = dataset_of(cfg, "val")
    images = len(kind.read_truth(dataset)["images"])
    batches = math.ceil(images / cfg.val_dataloader.batch_size)
    of_batch = log.val["time"].values[-1] if "time" in log.val else 0.0
    return Pace(sum(counted) / len(counted), batches * of_batch)


def write_config(draft: Path, schedule: Schedule, path: Path) -> Path:
    """Writes the config of a training: a draft with its schedule. Returns its path.

    The learning rate rises for 50 iterations, of short trainings a quarter of them, and falls on a
    cosine to 0.
    """
    last, every = schedule.iterations, schedule.val_interval
    warm_up = min(_WARM_UP, last // 4)
    logged = min(50, max(1, last // 10))
    phases = [f"type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin={warm_up}, end={last}"]
    if warm_up:
        phases.insert(
            0, f"type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end={warm_up}"
        )
    lines = "\n".join(f"    dict({phase})," for phase in phases)
    limit = round(60 * schedule.minutes, 3) if schedule.minutes else None
    inside = draft.is_relative_to(path.parent)
    base = f"./{draft.relative_to(path.parent).as_posix()}" if inside else str(draft)
    about = f"{path.stem} with the budget of the comparison. Written by fldet compare."
    text = f"""{literal(about)}
_base_ = {literal(base)}
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters={last}, val_interval={every})
param_scheduler = [
{lines}
]
max_time = {limit}
early_stopping = False
default_hooks = dict(checkpoint=dict(interval={every}), logger=dict(interval={logged}))
log_processor = dict(window_size={logged})
"""
    write_atomically(path, text)
    load_config(path)
    return path


# --- runs ----------------------------------------------------------------------------------------


def pace_run(draft: Path, folder: Path, device: str) -> Run:
    """Returns the run that tells how fast a contestant is."""
    count = PACE_ITERATIONS
    options = (
        *(f"train_cfg.max_iters={count}", f"train_cfg.val_interval={count}"),
        *(f"default_hooks.checkpoint.interval={count}", f"default_hooks.logger.interval={_LOGGED}"),
        f"log_processor.window_size={_LOGGED}",
    )
    step = _training(draft, folder, device, options)
    return _run(draft, folder, (step,), options)


def training_run(config: Path, folder: Path, device: str) -> Run:
    """Returns the training of a contestant and its test."""
    arguments = ("test", str(config), "--device", device, "--work-dir", str(folder / "test"))
    test = Step("test", arguments, trained=True, makes=str(RESULT))
    return _run(config, folder, (_training(config, folder, device), test))


def timing_run(training: Run, folder: Path, device: str) -> Run:
    """Returns the timing of a contestant that was trained."""
    options = ("--images", str(TIMED_IMAGES), "--device", device, "--json")
    arguments = ("benchmark", str(training.config), str(training.folder), *options)
    return _run(training.config, folder, (Step("timing", arguments, makes=BENCHMARK, prints=True),))


def _training(config: Path, folder: Path, device: str, options: Sequence[str] = ()) -> Step:
    place = ("--work-dir", str(folder), "--seed", "0", "--device", device, "--resume")
    cfg = ("--cfg-options", *options) if options else ()
    return Step("train", ("train", str(config), *place, *cfg))


def _run(config: Path, folder: Path, steps: tuple[Step, ...], options: tuple[str, ...] = ()) -> Run:
    name = folder.parent.name
    found = digest(load_config(config, options))
    return Run((name,), 0, config, folder, found, steps, cfg_options=options)
