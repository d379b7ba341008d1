"""A first config for a data set of one's own."""

import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.analysis.init_data import images_aside, oversampling, read_splits, written
from fldet.analysis.init_models import MOST, RECIPES, Recipe, default_model
from fldet.analysis.init_text import Plan, config_text
from fldet.anchors.boxes import collect_boxes
from fldet.anchors.cover import AnchorScheme, BoxSet
from fldet.anchors.report import search
from fldet.checkpoints.files import read_checkpoint
from fldet.checkpoints.packaged import MissingPackageError, PackagedWeights, packaged_file
from fldet.config.load import load_config
from fldet.data.formats.found import FoundData, used_classes
from fldet.data.formats.recognise import recognise
from fldet.errors import CheckpointError, DataError, UsageError
from fldet.files import write_atomically
from fldet.registry import MODELS

log = logging.getLogger("fldet")

MIN_GAIN = 0.02  # share of the boxes that other anchors must cover besides


@dataclass(frozen=True)
class InitResult:
    """A config that was written."""

    path: Path
    model: str  # of ``RECIPES``
    format: str  # of the data
    root: Path  # of the data
    images: int  # in the training split
    validation: int  # images to validate on; those of the test split where there is no other
    # list of those that were training images, as the data has no validation split; else None
    set_aside: Path | None
    groups: int | None  # of all training images, if some are set aside: near copies are one
    classes: tuple[str, ...]
    scale: tuple[int, int]  # longer and shorter side of images in training, in pixels
    batch_size: int  # images of a step on one device
    max_iters: int
    # where others than the paper's are suggested: share of the boxes that they cover
    anchors: float | None
    anchors_before: float | None  # share that the paper's cover; None if they stay


def init_config(
    path: Path,
    out: Path,
    *,
    model: str | None = None,
    size: tuple[int, int] | None = None,
    images: Path | None = None,
    finetune: Path | None = None,
    val: float | None = None,
    columns: str | None = None,
) -> InitResult:
    """Writes a config for the data set at ``path`` and returns what it chose.

    Args:
        path: of the data set, for ``recognise``.
        out: the config to write; must not exist.
        model: ``r18`` or ``r50``; made for a CPU ``lite``, whose ImageNet weights are in a Python
            package, or ``small``, which starts from nothing. None takes ``r18`` with a GPU, without
            one ``lite``.
        size: longer and shorter side of images, in pixels; None takes the median of the images, for
            the small model at most 320, for the light one of the same shape with a side of 512.
        images: folder of the images, for ``recognise``.
        finetune: checkpoint of a whole detector to start from; None starts from ImageNet weights.
        val: share of the training images that is set aside to validate on, of data without a
            validation split: ``set_aside``. They are listed in a file beside ``out``. 0 sets none
            aside; None 0.2 where there are neither validation nor test images and it is possible.
        columns: of a CSV, for ``recognise``.

    Raises:
        UsageError: ``out`` exists or is no ``.py``, the model is unknown, ``val`` is no share, or
            the data has a validation split.
        DataError: the data set is not recognised, malformed, or has no training images or boxes, or
            none of them can be set aside.
        CheckpointError: ``finetune`` cannot be read, or is of another model.
    """
    model = model or default_model()
    _check_options(out, model, val)
    found, contents = read_splits(recognise(path, images, columns))
    aside = images_aside(found, contents["train"], val)
    file = out.absolute().with_name(f"{out.stem}_val.json")
    if aside:
        found = aside.applied(found, file)
        contents = {**contents, **aside.divided(contents["train"])}
    plan = replace(_fitted(found, contents, out.stem, model, size), aside=aside)
    with written(file, aside.text if aside else ""):
        if finetune:
            plan = replace(plan, finetune=finetune.resolve())
            _check_fit(plan)
        advice = better_anchors(collect_boxes(_draft(plan)))
        write_atomically(out, config_text(plan, advice))
        _warn_of_missing_weights(load_config(out))
    return InitResult(
        path=out,
        model=model,
        format=plan.found.format,
        root=plan.found.root,
        images=plan.images,
        validation=len(contents.get("val", contents.get("test", {"images": ()}))["images"]),
        set_aside=file if aside else None,
        groups=aside.groups if aside else None,
        classes=plan.classes,
        scale=plan.scale,
        batch_size=plan.batch_size,
        max_iters=plan.max_iters,
        anchors=advice[1] if advice else None,
        anchors_before=advice[2] if advice else None,
    )


def _check_options(out: Path, model: str, val: float | None) -> None:
    if out.exists():
        raise UsageError(f"{out} exists", expected="a new file", hint="choose another --out")
    if out.suffix != ".py":
        raise UsageError(f"{out} is not a .py file", expected="for example --out my_config.py")
    if model not in RECIPES:
        raise UsageError(f"unknown model {model!r}", expected=", ".join(RECIPES))
    if val is not None and not 0 <= val < 1:
        raise UsageError(
            f"val is {val}", expected="a share of the images, above 0 and below 1; or 0"
        )


def make_plan(found: FoundData, name: str, model: str, size: tuple[int, int] | None = None) -> Plan:
    """Returns what the config of a data set says, anchors aside.

    Raises:
        DataError: there are no training images or boxes, or an image has no size.
    """
    return _fitted(*read_splits(found), name, model, size)


def _fitted(
    found: FoundData,
    contents: Mapping[str, Mapping[str, Any]],
    name: str,
    model: str,
    size: tuple[int, int] | None,
) -> Plan:
    images = contents["train"]["images"]
    classes, groups = used_classes(contents.values())
    recipe = RECIPES[model]
    scale = size or median_scale(images, recipe.largest, enlarges=recipe.enlarges)
    batch_size = min(recipe.batch_size if scale[0] <= 640 else 4, len(images))
    return Plan(
        name=name,
        model=model,
        found=found,
        classes=classes,
        groups=groups,
        images=len(images),
        scale=scale,
        batch_size=batch_size,
        max_iters=iterations(recipe, len(images), batch_size),
        oversample=oversampling(contents["train"]),
    )


def median_scale(
    images: list[Mapping[str, Any]], largest: tuple[int, int], *, enlarges: bool = False
) -> tuple[int, int]:
    """Returns the median longer and shorter side in pixels, of the same shape at most ``largest``.

    ``enlarges`` says whether smaller ones become as large.

    Raises:
        DataError: an image has no width or height.
    """
    try:
        sides = np.array([sorted((one["width"], one["height"])) for one in images], float)
    except KeyError as error:
        raise DataError(
            f"an image has no {error}", expected="every image has width and height"
        ) from None
    short, long = np.median(sides, axis=0)
    factor = min(largest[0] / long, largest[1] / short)
    factor = factor if enlarges else min(1.0, factor)
    return round(long * factor), round(short * factor)


def iterations(recipe: Recipe, images: int, batch_size: int) -> int:
    """Returns a recipe's epochs in iterations, rounded up to hundreds, within its limits."""
    wanted = math.ceil(recipe.epochs * images / batch_size / 100) * 100
    return min(max(wanted, recipe.fewest), MOST)


def better_anchors(boxes: BoxSet) -> tuple[AnchorScheme, float, float] | None:
    """Returns the anchors that cover most boxes, no more of them than now, and both shares.

    None if they gain less than two points.
    """
    now, choices = search(boxes)
    affordable = [one for one in choices if one.anchors <= now.anchors]
    best = max(affordable, key=lambda one: one.covered)
    if best.covered - now.covered < MIN_GAIN:
        return None
    return best.scheme, best.covered, now.covered


def _draft(plan: Plan) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "draft.py")
        path.write_text(config_text(plan, None), encoding="utf-8")
        return load_config(path, {"augment": "none", "oversample": None})  # objects as they are


def _warn_of_missing_weights(cfg: Config) -> None:
    weights: Any = cfg.model.backbone.get("init_cfg") or {}
    if weights.get("type") == f"fldet.{PackagedWeights.__name__}":
        try:
            packaged_file(weights["package"], weights["file"])
        except MissingPackageError as error:
            log.warning("%s; before the training: %s", error.message, error.hint)


def _check_fit(plan: Plan) -> None:
    """Raises CheckpointError where backbone or neck cannot start from it; the head may differ."""
    file = plan.finetune or Path()
    content, cfg = read_checkpoint(file), _draft(plan)
    init_default_scope(cfg.default_scope)
    found = {n.removeprefix("module."): v for n, v in content.get("state_dict", content).items()}
    with torch.device("meta"):  # shapes without memory
        own = MODELS.build(cfg.model).state_dict()
    for name, value in own.items():
        shape = tuple(found[name].shape) if name in found else None
        if not name.startswith("bbox_head.") and shape != tuple(value.shape):
            others = [one for one in RECIPES if one != plan.model]
            raise CheckpointError(
                f"{file} does not fit --model {plan.model}: {name} is {shape or 'missing'}, the "
                f"model has {tuple(value.shape)}",
                expected="a checkpoint of that model",
                hint=f"--model {' or '.join(others)}, if it is of that",
            )
