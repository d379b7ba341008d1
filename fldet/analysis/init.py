"""A first config for a data set of one's own."""

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet import __version__
from fldet.analysis.init_data import images_aside, read_splits, written
from fldet.anchors.boxes import collect_boxes
from fldet.anchors.cover import AnchorScheme, BoxSet
from fldet.anchors.report import search
from fldet.checkpoints.files import read_checkpoint
from fldet.config.load import load_config
from fldet.config.text import literal, words
from fldet.data.formats.found import FoundData, used_classes
from fldet.data.formats.recognise import recognise
from fldet.data.holdout.set_aside import SetAside
from fldet.errors import CheckpointError, DataError, UsageError
from fldet.files import write_atomically
from fldet.registry import MODELS as REGISTERED

log = logging.getLogger("fldet")

MODELS = ("r18", "r50", "small")
SMALL = "small"  # starts from nothing, for a CPU
LARGEST = (1333, 800)  # the paper's scale: longer and shorter side
LARGEST_OF_SMALL = (320, 320)
EPOCHS, FEWEST, MOST = 12, 2000, 90_000  # iterations: of the images, and their limits
FEWEST_OF_SMALL = 1000
MIN_GAIN = 0.02  # share of the boxes that other anchors must cover besides
FEW_CLASSES = 20  # so many are written out


@dataclass(frozen=True)
class InitResult:
    """A config that was written."""

    path: Path
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


@dataclass(frozen=True)
class Plan:
    """What goes into the config."""

    name: str
    model: str
    found: FoundData
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    images: int
    scale: tuple[int, int]
    batch_size: int
    max_iters: int
    finetune: Path | None = None
    aside: SetAside | None = None


def init_config(
    path: Path,
    out: Path,
    *,
    model: str = "r18",
    size: tuple[int, int] | None = None,
    images: Path | None = None,
    finetune: Path | None = None,
    val: float | None = None,
) -> InitResult:
    """Writes a config for the data set at ``path`` and returns what it chose.

    Args:
        path: of the data set, for ``recognise``.
        out: the config to write; must not exist.
        model: ``r18``, ``r50``, or ``small``, which starts from nothing and is made for a CPU.
        size: longer and shorter side of images, in pixels; None takes the median of the images, for
            the small model at most 320.
        images: folder of the images, for ``recognise``.
        finetune: checkpoint of a whole detector to start from; None starts from ImageNet weights.
        val: share of the training images that is set aside to validate on, of data without a
            validation split: ``set_aside``. They are listed in a file beside ``out``. 0 sets none
            aside; None 0.2 where there are neither validation nor test images and it is possible.

    Raises:
        UsageError: ``out`` exists or is no ``.py``, the model is unknown, ``val`` is no share, or
            the data has a validation split.
        DataError: the data set is not recognised, malformed, or has no training images or boxes, or
            none of them can be set aside.
        CheckpointError: ``finetune`` cannot be read, or is of another model.
    """
    _check_options(out, model, val)
    found, contents = read_splits(recognise(path, images))
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
        load_config(out)
    return InitResult(
        path=out,
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
    if model not in MODELS:
        raise UsageError(f"unknown model {model!r}", expected=", ".join(MODELS))
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
    scale = size or median_scale(images, LARGEST_OF_SMALL if model == SMALL else LARGEST)
    batch_size = min(8 if scale[0] <= 640 else 4, len(images))
    return Plan(
        name=name,
        model=model,
        found=found,
        classes=classes,
        groups=groups,
        images=len(images),
        scale=scale,
        batch_size=batch_size,
        max_iters=iterations(
            len(images), batch_size, FEWEST_OF_SMALL if model == SMALL else FEWEST
        ),
    )


def median_scale(
    images: list[Mapping[str, Any]], largest: tuple[int, int] = LARGEST
) -> tuple[int, int]:
    """Returns the median longer and shorter side in pixels, of the same shape at most ``largest``.

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
    factor = min(1.0, largest[0] / long, largest[1] / short)
    return round(long * factor), round(short * factor)


def iterations(images: int, batch_size: int, fewest: int = FEWEST) -> int:
    """Returns 12 epochs in iterations, from ``fewest`` to 90,000, rounded up to hundreds."""
    wanted = math.ceil(EPOCHS * images / batch_size / 100) * 100
    return min(max(wanted, fewest), MOST)


def augmentation_for(images: int) -> str:
    """Returns the value of the line ``augment`` for so many training images."""
    return "small" if images < 1000 else "medium" if images < 10_000 else "none"


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
        return load_config(path, {"augment": "none"})  # anchors are for objects as they are


def _check_fit(plan: Plan) -> None:
    """Raises CheckpointError where backbone or neck cannot start from it; the head may differ."""
    file = plan.finetune or Path()
    content, cfg = read_checkpoint(file), _draft(plan)
    init_default_scope(cfg.default_scope)
    found = {n.removeprefix("module."): v for n, v in content.get("state_dict", content).items()}
    with torch.device("meta"):  # shapes without memory
        own = REGISTERED.build(cfg.model).state_dict()
    for name, value in own.items():
        shape = tuple(found[name].shape) if name in found else None
        if not name.startswith("bbox_head.") and shape != tuple(value.shape):
            others = [one for one in MODELS if one != plan.model]
            raise CheckpointError(
                f"{file} does not fit --model {plan.model}: {name} is {shape or 'missing'}, the "
                f"model has {tuple(value.shape)}",
                expected="a checkpoint of that model",
                hint=f"--model {' or '.join(others)}, if it is of that",
            )


# --- text ----------------------------------------------------------------------------------------


def config_text(plan: Plan, advice: tuple[AnchorScheme, float, float] | None) -> str:
    """Returns the config, at most 60 lines."""
    parts = [
        _head(plan),
        _model(plan, advice),
        _pipelines(plan),
        *(_loader(plan, split) for split in ("train", "val", "test")),
        _schedule(plan),
    ]
    return "\n".join(part for part in parts if part)


def _head(plan: Plan) -> str:
    model = "A small RetinaNet" if plan.model == SMALL else f"RetinaNet-{plan.model.upper()}"
    name = words(plan.name)
    title = f"{model} for {words(plan.found.root.name)}, {plan.found.format}"
    groups = [f"# {literal(name)} is no class: it only groups the others." for name in plan.groups]
    classes = f"classes = None  # all {len(plan.classes)} of the files"
    if plan.groups or len(plan.classes) <= FEW_CLASSES:
        names = [f"{literal(name)}," for name in plan.classes]
        classes = packed("classes = (", names, "    ").removesuffix(",") + ",)"
    lines = [
        f'"""{title}: {plan.images} training images.',
        "",
        f"Written by fldet init {__version__}; yours to change. Paths are relative to data_root.",
        f"Train: fldet train {name}.py",
        f"Test:  fldet test {name}.py work_dirs/{name} --show-dir pictures",
        '"""',
        *_bases(plan),
        f"data_root = {literal(str(plan.found.root))}",
        *groups,
        classes,
    ]
    return "\n".join(lines) + "\n"


def _bases(plan: Plan) -> list[str]:
    if not plan.finetune and plan.model != SMALL:
        return [f"_base_ = 'fldet::retinanet/{plan.model}_fpn_1x.py'"]
    names = (
        "models/retinanet_r18_small" if plan.model == SMALL else "models/retinanet_r50_fpn",
        "datasets/coco_detection",
        "schedules/finetune" if plan.finetune else "schedules/from_nothing",
        "default_runtime",
    )
    return ["_base_ = [", *(f"    'fldet::_base_/{name}.py'," for name in names), "]"]


def _model(plan: Plan, advice: tuple[AnchorScheme, float, float] | None) -> str:
    depth = plan.model[1:]
    lines = [
        "    # The backbone starts from ImageNet weights, downloaded once. Offline: give a file,",
        f"    # backbone=dict(init_cfg=dict(checkpoint='resnet{depth}.pth')),",
        "    # or none, and train all of it.",
        "    # backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False),",
    ]
    if plan.model == SMALL:
        lines = []
    elif plan.finetune:
        lines = [f"    backbone=dict(depth={depth}, init_cfg=None),"]
        lines += ["    neck=dict(in_channels=[64, 128, 256, 512]),"] if depth == "18" else []
    if advice:
        scheme, share, before = advice
        sizes, ratios = list(scheme.sizes), list(scheme.ratios)
        lines += [
            f"    # Fitted: {100 * share:.0f} % of the training boxes have one with IoU >= 0.5, "
            f"{100 * before:.0f} % one of the model's own.",
            "    bbox_head=dict(anchor_generator=dict(",
            f"        sizes={sizes}, num_scales={scheme.num_scales}, ratios={ratios})),",
        ]
    start = f"load_from = {literal(str(plan.finetune))}\n"
    if not plan.finetune:
        start = "# load_from = 'FILE.pth'  # a whole detector to start from\n"
    model = ["model = dict(", *lines, ")"] if lines else []
    return "\n".join([*model, start])


def _pipelines(plan: Plan) -> str:
    largest = LARGEST_OF_SMALL if plan.model == SMALL else LARGEST
    preset = augmentation_for(plan.images)
    augment = f"augment = {preset!r}  # for so few images\n" if preset != "none" else ""
    return f"""# Longer and shorter side of images, in pixels: the median, at most {largest}.
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = {plan.scale}
{augment}"""


def _loader(plan: Plan, split: str) -> str:
    """Returns the loader of a split and its evaluator; without images to validate on, none."""
    splits = plan.found.splits
    evaluator = "[dict(type='fldet.CocoMetric'), dict(type='fldet.VOCMetric')]"
    if plan.found.format != "Pascal VOC":
        evaluator = "dict(type='fldet.CocoMetric')"
    if split == "train":
        return _loader_text(plan, split, f"batch_size={plan.batch_size}")
    if split == "val":
        if "val" not in splits and "test" not in splits:
            return (
                "# There are no images to validate on: training ends without figures.\n"
                "val_dataloader = val_evaluator = val_cfg = None\n"
            )
        word = "" if "val" in splits else "# There is no split for validation: the test images.\n"
        if aside := plan.aside:
            count = f"{len(aside.names)} of {aside.images} training images"
            word = f"# {count} are set aside, near copies together; the file lists them.\n"
        return f"{word}{_loader_text(plan, 'val')}val_evaluator = {evaluator}\n"
    if "test" not in splits or "val" not in splits:
        return ""
    more = "batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False)"
    return f"{_loader_text(plan, 'test', more)}test_evaluator = {evaluator}\n"


def _loader_text(plan: Plan, split: str, more: str = "") -> str:
    splits = plan.found.splits
    options = dict(splits[split] if split in splits else splits["test"])
    entries = [f"{key}={literal(value)}" for key, value in options.items()]
    if split == "test":
        entries.append("test_mode=True")
    entries.append(f"pipeline={'train' if split == 'train' else 'test'}_pipeline")
    head = f"    {more},\n" if more else ""
    body = packed(" " * 8, [f"{entry}," for entry in entries], " " * 8).removesuffix(",")
    return f"{split}_dataloader = dict(\n{head}    dataset=dict(\n{body}))\n"


def packed(start: str, items: Sequence[str], indent: str) -> str:
    """Returns items on lines of 100 columns where they fit, broken between items only."""
    lines = [start]
    for item in items:
        space = "" if lines[-1].endswith("(") or not lines[-1].strip() else " "
        if len(lines[-1]) + len(space) + len(item) <= 98:
            lines[-1] += space + item
        else:
            lines.append(indent + item)
    return "\n".join(lines)


def _schedule(plan: Plan) -> str:
    last, warm_up = plan.max_iters, min(500, plan.max_iters // 4)
    fewest = FEWEST_OF_SMALL if plan.model == SMALL else FEWEST
    steps = [round(last * share) for share in (2 / 3, 8 / 9)]  # the paper's 60k and 80k of 90k
    every = math.ceil(last / 10)
    val = f", val_interval={every}" if {"val", "test"} & plan.found.splits.keys() else ""
    hooks = f"default_hooks = dict(checkpoint=dict(interval={every}))\n"
    if plan.finetune:
        stop = "" if val else "early_stopping = False\n"
        return (
            f"# At most {EPOCHS} epochs, or {fewest} iterations; early_stopping ends it before.\n"
            f"train_cfg = dict(max_iters={last}{val})\n{stop}{hooks}"
        )
    phases = [
        f"type='LinearLR', start_factor=1.0 / 3.0, by_epoch=False, begin=0, end={warm_up}",
        f"type='MultiStepLR', by_epoch=False, begin=0, end={last}, milestones={steps}, gamma=0.1",
    ]
    if plan.model == SMALL:
        phases = [
            "type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50",
            f"type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end={last}",
        ]
    lines = "\n".join(f"    dict({phase})," for phase in phases)
    return f"""# {EPOCHS} epochs, but at least {fewest} and at most {MOST} iterations.
train_cfg = dict(max_iters={last}{val})
param_scheduler = [
{lines}
]
{hooks}"""
