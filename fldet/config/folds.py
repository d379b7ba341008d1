"""The lines ``folds`` and ``fold``: training on all folds but one, and validation on that one.

``folds`` is a folder that ``fldet data split`` has written, ``fold`` the number of the one that is
left out. Both stay in the config that is saved, and data sets get the list of the fold.
"""

import copy
import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fldet.data.coco import CocoDataset
from fldet.data.folds.files import check_fold, list_of_fold, read_folds
from fldet.data.image_lists import ONLY, WITHOUT
from fldet.errors import ConfigError

log = logging.getLogger("fldet")

# What says which images a data set has; the rest is how they are read.
SOURCE = ("type", "data_root", "ann_file", "data_prefix", "split")
_METRICS = ("ann_file", "dataset")  # where the truth of a metric lies


def choose_fold(cfg: Config, folds: Path | None, fold: int | None) -> None:
    """Sets both lines in place, where they are not None."""
    if folds is not None:
        cfg.folds = str(folds)
    if fold is not None:
        cfg.fold = fold
    elif folds is not None and cfg.get("fold") is None:
        raise ConfigError(
            f"the folds of {folds}, and none is chosen",
            expected="the number of the one that is left out",
            hint="add --fold K, or train all of them: fldet cross-validate CONFIG",
        )


def fold_of_config(cfg: Config) -> tuple[Path, int] | None:
    """Returns folder and number of the fold that a config leaves out; None if it leaves out none.

    Raises:
        ConfigError: there is a number and no folder.
        DataError, UsageError: the folder has no such fold.
    """
    if cfg.get("fold") is None:
        return None
    if not cfg.get("folds"):
        raise ConfigError(
            f"fold is {cfg.fold}, and the config does not say of which folds",
            expected="the folder that fldet data split has written",
            hint="fldet train CONFIG --folds FOLDER --fold K, or folds = 'FOLDER' in the config",
        )
    folder = Path(cfg.folds)
    check_fold(cfg.fold, read_folds(folder), folder)
    return folder, cfg.fold


def use_fold(cfg: Config, training: list[tuple[type[CocoDataset], Any]]) -> None:
    """Has a config train without a fold, and validate and test on it, in place.

    All images of the training data's file take part: lists of images that were set aside before are
    given up. Data that are read for validation and test otherwise are left out of account.

    Args:
        cfg: as it is loaded or saved; one without ``fold`` stays as it is.
        training: class and keywords of the training data sets, those inside wrappers too; none of a
            config that was saved for a test, whose data sets have the fold already.

    Raises:
        ConfigError: there is no folder of the folds, the training data are of several files, or
            nothing is validated on.
        DataError, UsageError: the folder has no such fold.
    """
    chosen = fold_of_config(cfg)
    if chosen is None:
        return
    cfg.folds = str(chosen[0].absolute())
    file = str(list_of_fold(*chosen).absolute())
    if not cfg.get("train_dataloader"):
        _require_fold(cfg, file)
        return
    source = source_of(training, cfg)
    if not cfg.get("val_dataloader"):
        raise ConfigError(
            "fold: the config has no val_dataloader, whose pipeline reads the fold",
            expected="val_dataloader, val_evaluator and val_cfg",
            hint="fldet init DATA --val 0.2 writes a config that has them",
        )
    for _, dataset in training:
        dataset.pop(ONLY, None)
        dataset[WITHOUT] = file
    tested = cfg.val_dataloader.dataset
    for key in (*SOURCE, "metainfo", "indices", WITHOUT):
        tested.pop(key, None)
    tested.update(copy.deepcopy(source), only_images=file, test_mode=True)
    evaluator = cfg.get("val_evaluator")
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        for key in _METRICS if metric else ():
            metric.pop(key, None)
    for key in ("test_dataloader", "test_evaluator"):
        cfg[key] = copy.deepcopy(cfg[key.replace("test", "val")])
    log.info("fold %d of %s is left out of the training, and tested on", cfg.fold, cfg.folds)


def source_of(training: list[tuple[type[CocoDataset], Any]], cfg: Config) -> dict[str, Any]:
    """Returns type and keywords of the one data set that some data sets of a config read.

    Lists of images that it is restricted to are not among them: it is the whole of the data.
    """
    sources = []
    for _, dataset in training:
        one = {key: dataset[key] for key in SOURCE if dataset.get(key)}
        one.setdefault("data_root", str(cfg.get("data_root") or ""))
        if one not in sources:
            sources.append(one)
    if len(sources) != 1:
        raise ConfigError(
            f"fold: train_dataloader reads {len(sources)} data sets in COCO, VOC or YOLO format",
            expected="one, whose images are divided",
        )
    return sources[0]


def _require_fold(cfg: Config, file: str) -> None:
    """Refuses a fold of a config that was saved for the test of another one."""
    tested = cfg.test_dataloader.dataset.get(ONLY) if cfg.get("test_dataloader") else None
    if tested != file:
        raise ConfigError(
            f"fold is {cfg.fold}, but the config was saved for a test of {tested}",
            expected="the config that it was made of, or the one in the work dir of the training",
        )
