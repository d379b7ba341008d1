"""The text of a first config for a data set of one's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fldet import __version__
from fldet.analysis.init_models import MOST, RECIPES, Recipe, bases
from fldet.anchors.cover import AnchorScheme
from fldet.config.text import literal, words
from fldet.data.formats.found import FoundData
from fldet.data.holdout.set_aside import SetAside

FEW_CLASSES = 20  # so many are written out


@dataclass(frozen=True)
class Plan:
    """What goes into the config."""

    name: str
    model: str  # of ``RECIPES``
    found: FoundData
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    images: int
    scale: tuple[int, int]
    batch_size: int
    max_iters: int
    oversample: float | None  # the line of this name
    finetune: Path | None = None
    aside: SetAside | None = None

    @property
    def recipe(self) -> Recipe:
        """What the config says of the model."""
        return RECIPES[self.model]


def augmentation_for(images: int) -> str:
    """Returns the value of the line ``augment`` for so many training images."""
    return "small" if images < 1000 else "medium" if images < 10_000 else "none"


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
    name = words(plan.name)
    title = f"{plan.recipe.title} for {words(plan.found.root.name)}, {plan.found.format}"
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
    recipe = plan.recipe
    found = bases(recipe.fragment, "finetune") if plan.finetune else recipe.bases
    if len(found) == 1:
        return [f"_base_ = 'fldet::{found[0]}'"]
    return ["_base_ = [", *(f"    'fldet::{name}'," for name in found), "]"]


def _model(plan: Plan, advice: tuple[AnchorScheme, float, float] | None) -> str:
    own = plan.recipe.tuned if plan.finetune else plan.recipe.lines
    lines = [f"    {line}" for line in own]
    if advice:
        scheme, share, before = advice
        sizes, ratios = list(scheme.sizes), list(scheme.ratios)
        lines += [
            f"    # Fitted: {100 * share:.0f} % of the training boxes have one with IoU >= 0.5, "
            f"{100 * before:.0f} % one of the model's own.",
            "    bbox_head=dict(anchor_generator=dict(",
            f"        sizes={sizes}, num_scales={scheme.num_scales}, ratios={ratios})),",
        ]
    tuned = plan.recipe.tuned_top if plan.finetune else ()
    start = f"load_from = {literal(str(plan.finetune))}\n"
    if not plan.finetune:
        start = "# load_from = 'FILE.pth'  # a whole detector to start from\n"
    model = ["model = dict(", *lines, ")"] if lines else []
    return "\n".join([*model, *plan.recipe.top, *tuned, start])


def _pipelines(plan: Plan) -> str:
    recipe = plan.recipe
    rule = f"{'enlarged to' if recipe.enlarges else 'at most'} {recipe.largest}"
    preset = augmentation_for(plan.images)
    augment = f"augment = {preset!r}  # for so few images\n" if preset != "none" else ""
    rare = "  # images of rare classes more often"
    oversample = f"oversample = {plan.oversample}{rare}\n" if plan.oversample else ""
    sizes = f"train_pipeline[2]['scale'] = test_pipeline[1]['scale'] = {plan.scale}"
    if (factor := recipe.tested_larger) != 1 and preset == "small":
        sizes = (
            f"train_pipeline[2]['scale'] = {plan.scale}\n"
            f"test_pipeline[1]['scale'] = {tuple(round(factor * side) for side in plan.scale)}  "
            "# finds more: docs/own-data.md"
        )
    return f"""# Longer and shorter side of images, in pixels: the median, {rule}.
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
{sizes}
{augment}{oversample}"""


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
    epochs, fewest, start = plan.recipe.epochs, plan.recipe.fewest, plan.recipe.warm_up
    steps = [round(last * share) for share in (2 / 3, 8 / 9)]  # the paper's 60k and 80k of 90k
    parts = (10, 10) if plan.finetune else (plan.recipe.validations, plan.recipe.checkpoints)
    every, saved = (math.ceil(last / part) for part in parts)
    val = f", val_interval={every}" if {"val", "test"} & plan.found.splits.keys() else ""
    hooks = f"default_hooks = dict(checkpoint=dict(interval={saved}))\n"
    if plan.finetune:
        stop = "" if val else "early_stopping = False\n"
        return (
            f"# At most {epochs} epochs, or {fewest} iterations; early_stopping ends it before.\n"
            f"train_cfg = dict(max_iters={last}{val})\n{stop}{hooks}"
        )
    phases = [
        f"type='LinearLR', start_factor=1.0 / 3.0, by_epoch=False, begin=0, end={warm_up}",
        f"type='MultiStepLR', by_epoch=False, begin=0, end={last}, milestones={steps}, gamma=0.1",
    ]
    if start is not None:
        phases = [
            f"type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end={start}",
            f"type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin={start}, end={last}",
        ]
    lines = "\n".join(f"    dict({phase})," for phase in phases)
    return f"""# {epochs} epochs, but at least {fewest} and at most {MOST} iterations.
train_cfg = dict(max_iters={last}{val})
param_scheduler = [
{lines}
]
{hooks}"""
