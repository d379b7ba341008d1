"""The folder of a cross-validation as it begins, and the runs that it takes.

``fldet.data.folds.files`` says what is in the folder.
"""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.config.folds import source_of
from fldet.config.load import format_config, load_config
from fldet.config.prepare import dataset_of, our_datasets, prepare_config
from fldet.data.folds.files import (
    DETECTIONS,
    FOLDS,
    Folds,
    fold_of_names,
    is_folder_of_folds,
    list_of_fold,
    read_folds,
    work_dir_of_fold,
    write_folds,
)
from fldet.data.folds.split import SplitOptions, divide
from fldet.data.image_lists import ONLY, part_of
from fldet.errors import ConfigError, UsageError
from fldet.files import make_folder, write_atomically
from fldet.registry import dataset_class
from fldet.runs.outcome import RESULT
from fldet.runs.run import Run, Step, digest

CONFIG = "config.py"


@dataclass(frozen=True)
class Begun:
    """A cross-validation whose folder has its config and its folds."""

    folder: Path
    config: Path
    folds: Folds


def begin(cfg: Config, division: SplitOptions | Path, folder: Path) -> Begun:
    """Writes config and folds into a new folder, or checks that an old one was begun with them.

    Args:
        cfg: as ``load_config`` returned it.
        division: how the training images are divided, or a folder with folds, which are copied.
        folder: of the cross-validation, made if it is not there.

    Raises:
        UsageError: the folder was begun with other folds or another config, or has other files.
        ConfigError: the config has no images to train on, none to validate on, or not one
            ``fldet.CocoMetric``.
        DataError: the data cannot be read, or not be divided so.
    """
    folder = folder.absolute()
    cfg = copy.deepcopy(cfg)
    _check_metric(cfg)
    cfg.update(folds=str(folder), fold=None)
    text = format_config(cfg)
    config = folder / CONFIG
    if is_folder_of_folds(folder):
        _require_same(division, folder)
        if not config.exists() or config.read_text(encoding="utf-8") != text:
            raise _begun_with_another("config", folder)
        return Begun(folder, config, read_folds(folder))
    make_folder(folder)
    _require_no_others(folder)
    write_atomically(config, text)
    if isinstance(division, Path):
        _copy_folds(division, folder)
    else:
        content, images = _content(cfg)
        divide(content, images, division).write(folder)
    return Begun(folder, config, read_folds(folder))


def training_run(begun: Begun, number: int, device: str, gpus: int) -> Run:
    """Returns the training that leaves out a fold, with its test on that fold."""
    work_dir = work_dir_of_fold(begun.folder, number)
    changes = (f"fold={number}",)
    cfg = load_config(begun.config, changes)
    seed = (cfg.get("randomness") or {}).get("seed") or 0
    here = ("--device", device, *(("--gpus", str(gpus)) if gpus > 1 else ()))
    overrides = ("--cfg-options", *changes)
    place = ("--work-dir", str(work_dir), "--seed", str(seed), "--resume")
    tested = ("--work-dir", str(work_dir / RESULT.parent), "--out", str(detections_of(work_dir)))
    train = ("train", str(begun.config), *place, *here, *overrides)
    test = ("test", str(begun.config), *tested, *here, *overrides)
    return Run(
        (f"fold {number}",),
        seed,
        begun.config,
        work_dir,
        digest(cfg),
        (Step("train", train), Step("test", test, trained=True, makes=str(RESULT))),
        cfg_options=changes,
    )


def detections_of(work_dir: Path) -> Path:
    """Returns where the test of a fold writes its detections."""
    return work_dir / RESULT.parent / DETECTIONS


def truth_of_folds(begun: Begun) -> dict[str, Any]:
    """Returns the ground truth of all images in folds as ``annotations.json`` has it."""
    cfg = load_config(begun.config, {"fold": 1})
    logging.disable(logging.INFO)  # nothing is trained or tested now
    try:
        kind, dataset = dataset_of(cfg, "test")
    finally:
        logging.disable(logging.NOTSET)
    content = kind.read_truth({key: dataset[key] for key in dataset if key != ONLY})
    folder, fold_of = kind.image_folder(dataset).absolute(), fold_of_names(begun.folder)
    listed = part_of(content, fold_of.keys(), listed=True)
    images = [
        {**one, "file_name": str(folder / one["file_name"]), "fold": fold_of[one["file_name"]]}
        for one in listed["images"]
    ]
    return {**listed, "images": images}


def _content(cfg: Config) -> tuple[dict[str, Any], Path]:
    """Returns the content of the training data of a config, and the folder of its images."""
    prepared = prepare_config(cfg, phases=("train",))
    source = source_of(our_datasets(prepared.train_dataloader), prepared)
    kind = dataset_class(source["type"])
    return kind.read(source), kind.image_folder(source)


def _check_metric(cfg: Config) -> None:
    evaluator: Any = cfg.get("val_evaluator") or []
    metrics = evaluator if isinstance(evaluator, list) else [evaluator]
    if sum(str(one.get("type")) == "fldet.CocoMetric" for one in metrics) != 1:
        raise ConfigError(
            "a cross-validation needs one fldet.CocoMetric among val_evaluator",
            expected="val_evaluator = dict(type='fldet.CocoMetric')",
        )


def _require_same(division: SplitOptions | Path, folder: Path) -> None:
    """Raises UsageError unless the folds in a folder are those that are asked for."""
    old = read_folds(folder)
    if isinstance(division, Path):
        same = fold_of_names(division) == fold_of_names(folder)
    else:
        asked = (division.folds, division.seed, division.stratify, division.group_by)
        same = asked == (old.count, old.seed, old.stratified, old.group_by)
    if not same:
        raise _begun_with_another("division into folds", folder)


def _begun_with_another(what: str, folder: Path) -> UsageError:
    return UsageError(
        f"{folder} was begun with another {what}",
        expected="the same config, --cfg-options and folds",
        hint=f"choose another --work-dir, or remove it: rm -r {folder}",
    )


def _require_no_others(folder: Path) -> None:
    """Raises UsageError if a folder has files of anything but a beginning that was cut off."""
    own = ("fold_*.json", CONFIG, ".*", "run.lock")
    others = set(folder.iterdir()) - {path for pattern in own for path in folder.glob(pattern)}
    if others:
        raise UsageError(
            f"{folder} has files that are of no cross-validation: {min(others).name}",
            expected=f"a new folder, or one with {FOLDS}",
            hint="choose another --work-dir",
        )


def _copy_folds(source: Path, folder: Path) -> None:
    folds = read_folds(source)
    for number in folds.numbers:
        write_atomically(list_of_fold(folder, number), list_of_fold(source, number).read_bytes())
    write_folds(folds, folder)
