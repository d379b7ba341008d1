"""Boxes as the network sees them, without its images: what the anchors of a config have to cover.

Sizes come from the annotation file and go through resizing and crops of the pipeline, so nothing is
decoded and a data set of any size is done in seconds.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import RandomChoiceResize, RandomResize
from mmdet.datasets.transforms import FilterAnnotations
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import init_default_scope

from fldet.anchors.cover import AnchorScheme, AssignRule, BoxSet, best_ious
from fldet.config.prepare import prepare_config
from fldet.data.sizes import _boxes_of, _moves_boxes, _transforms, padded, seeded
from fldet.data.transforms import RandomCrop
from fldet.errors import ConfigError, DataError, FldetError, UsageError
from fldet.registry import DATASETS, TASK_UTILS

log = logging.getLogger("fldet")

Track = Callable[[Sequence[int]], Iterable[int]]

_SAMPLE = 2000  # images that a training run looks at before it starts
_TOO_SMALL = 0.7  # of the side of the smallest anchor: then no IoU reaches a half
_MOST_POORLY_COVERED = 0.05


def collect_boxes(
    cfg: Config,
    split: str = "train",
    *,
    max_images: int | None = None,
    seed: int = 0,
    track: Track = iter,
) -> BoxSet:
    """Returns the boxes of a split, in pixels of the network's input, with the config's anchors.

    At most ``max_images`` are chosen at random. ``seed`` is that of the choice and of the scales of
    a random resizing. ``track`` wraps the numbers of the images, to show progress.
    """
    if split not in ("train", "val", "test"):
        raise UsageError(f"unknown split {split!r}", expected="train, val or test")
    prepared = prepare_config(cfg, phases=(split,))
    init_default_scope(prepared.get("default_scope", "mmdet"))
    scheme, rule = anchor_scheme(prepared), assign_rule(prepared)
    dataset = DATASETS.build(prepared[f"{split}_dataloader"].dataset)
    chosen = _choose(len(dataset), max_images, seed)
    collected = _collect(prepared, dataset, chosen, scheme, rule, seed, track)
    if not len(collected.boxes):
        raise DataError(f"the {split} images have no box", expected="a split with annotations")
    collected.about.update(config=Path(cfg.filename or "config").stem, split=split)
    return collected


def warn_of_poor_cover(cfg: Config, dataset: Any) -> None:
    """Logs a line if anchors fit more than 5 % of the boxes of a sample badly; never fails.

    The config is that of a training, prepared; at most 2000 images of its data are looked at.
    """
    if not is_main_process():
        return
    try:
        scheme, rule = anchor_scheme(cfg), assign_rule(cfg)
        chosen = _choose(len(dataset), _SAMPLE, seed=0)
        sample = _collect(cfg, dataset, chosen, scheme, rule, 0, iter)
    except FldetError:  # another kind of model
        return
    except Exception as error:  # a hint is not worth a run
        log.debug("the cover of the anchors is unknown: %r", error)
        return
    best = best_ious(sample.boxes, sample.padded_wh[sample.image_of], scheme)
    is_poor = best < rule.pos_iou_thr
    if len(best) and is_poor.mean() > _MOST_POORLY_COVERED:
        log.warning(
            "%.1f %% of the boxes of %d training images have no anchor with an IoU of %g or more: "
            "at most their best anchors learn them; %s",
            *(100 * is_poor.mean(), len(chosen), rule.pos_iou_thr),
            _remedy(sample, is_poor, scheme, cfg),
        )


def _remedy(sample: BoxSet, is_poor: Any, scheme: AnchorScheme, cfg: Config) -> str:
    """Returns larger images for boxes that became too small for any anchor, else other anchors."""
    sides = np.sqrt(np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1))[is_poor]
    smaller = (sides < _TOO_SMALL * min(scheme.sizes)).mean()
    shrunk = float(np.median(np.sqrt(sample.areas[is_poor]) / np.maximum(sides, 1e-6)))
    if smaller > 0.5 and shrunk > 1.2:
        return (
            f"{100 * smaller:.0f} % of these are smaller than the smallest anchor, as images are "
            f"shrunk {shrunk:.1f} times: larger images help, scale of Resize in the pipelines "
            "(fldet init --size WxH)"
        )
    return f"fldet analyze anchors {cfg.filename or 'CONFIG'} suggests others"


# --- anchors and assigner of a config ------------------------------------------------------------


def anchor_scheme(cfg: Config) -> AnchorScheme:
    """Returns the anchors of a config's head, which have to be scales of an octave in ratios."""
    options = (cfg.model.get("bbox_head") or {}).get("anchor_generator")
    if not options:
        raise ConfigError(
            f"the model of the config, {cfg.model.get('type')}, has no bbox_head.anchor_generator",
            expected="a one-stage detector with anchors, as RetinaNet",
        )
    generator = TASK_UTILS.build(options)
    problem = ConfigError(
        f"model.bbox_head.anchor_generator is {options['type']} of a kind that cannot be analysed",
        expected="centred anchors, the same scales per octave and ratios on every level",
    )
    try:
        scheme = AnchorScheme(
            sizes=tuple(float(s * generator.octave_base_scale) for s in generator.base_sizes),
            strides=tuple(int(x) for x, _ in generator.strides),
            num_scales=int(generator.scales_per_octave),
            ratios=tuple(round(float(ratio), 6) for ratio in generator.ratios),
        )
    except (AttributeError, TypeError):  # no octaves
        raise problem from None
    ours, theirs = scheme.base_anchors(), [level.numpy() for level in generator.base_anchors]
    same = all(a.shape == b.shape and np.allclose(a, b) for a, b in zip(ours, theirs, strict=True))
    if not same or any(x != y for x, y in generator.strides):
        raise problem
    return scheme


def assign_rule(cfg: Config) -> AssignRule:
    """Returns the rule by which a config's anchors get boxes.

    The assigner has to be a ``MaxIoUAssigner`` that leaves out no anchors near the edge.
    """
    train_cfg = cfg.model.get("train_cfg") or {}
    options = train_cfg.get("assigner") or {}
    if not str(options.get("type")).endswith("MaxIoUAssigner"):
        raise ConfigError(
            f"model.train_cfg.assigner is {options.get('type')}", expected="MaxIoUAssigner"
        )
    if train_cfg.get("allowed_border", -1) >= 0:
        raise ConfigError(
            f"model.train_cfg.allowed_border is {train_cfg['allowed_border']}",
            expected="-1: every anchor is used",
        )
    background = options.get("neg_iou_thr", 0.4)  # a number, or the two ends of a range
    return AssignRule(
        pos_iou_thr=float(options.get("pos_iou_thr", 0.5)),
        neg_iou_thr=float(background[1] if isinstance(background, (tuple, list)) else background),
        match_low_quality=bool(options.get("match_low_quality", True)),
        min_pos_iou=float(options.get("min_pos_iou", 0.0)),
    )


# --- boxes of a data set -------------------------------------------------------------------------


def _choose(count: int, at_most: int | None, seed: int) -> list[int]:
    """Returns numbers of images, ascending."""
    if at_most is None or count <= at_most:
        return list(range(count))
    chosen = np.random.default_rng(seed).choice(count, at_most, replace=False)
    return sorted(chosen.tolist())


def _collect(
    cfg: Config,
    dataset: Any,
    chosen: Sequence[int],
    scheme: AnchorScheme,
    rule: AssignRule,
    seed: int,
    track: Track,
) -> BoxSet:
    transforms = _transforms(dataset)
    followed = [one for one in transforms if _moves_boxes(one)]
    others = [type(one).__name__ for one in transforms if not _moves_boxes(one)]
    divisor = (cfg.model.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
    with seeded(seed):
        seen = [_boxes_of(dataset.get_data_info(index), followed) for index in track(chosen)]
    sizes = np.array([size for _, _, size in seen], np.int64).reshape(-1, 2)
    return BoxSet(
        boxes=np.concatenate([boxes for boxes, _, _ in seen]),
        image_of=np.repeat(np.arange(len(seen)), [len(boxes) for boxes, _, _ in seen]),
        padded_wh=padded(sizes, divisor),
        areas=np.concatenate([areas for _, areas, _ in seen]),
        scheme=scheme,
        rule=rule,
        about={
            "images": f"all {len(chosen)} images"
            if len(chosen) == len(dataset)
            else f"{len(chosen)} of {len(dataset)} images, drawn with seed {seed}",
            "resizing": "; ".join(filter(None, (_describe(one, seed) for one in followed)))
            or "none",
            "left_out": ", ".join(s for s in others if not s.startswith(("Load", "Pack"))),
        },
    )


def _describe(transform: Any, seed: int) -> str:
    """Returns a resizing or crop in a few words, '' for a step that only leaves boxes out."""
    if isinstance(transform, FilterAnnotations):
        return ""
    if isinstance(transform, RandomCrop):
        return f"RandomCrop to {transform.crop_size} at most, drawn with seed {seed}"
    name, inner = type(transform).__name__, getattr(transform, "resize", transform)
    if isinstance(transform, RandomChoiceResize):
        scales = transform.scales
        among = f"one of {len(scales)} scales, {scales[0]} to {scales[-1]}"
        return f"{name} to {among}, drawn with seed {seed}"
    if isinstance(transform, RandomResize):
        times = f" x {transform.ratio_range}" if transform.ratio_range else ""
        return f"{name} to {transform.scale}{times}, drawn with seed {seed}"
    to = transform.scale or f"x {transform.scale_factor}"
    return f"{name} to {to}{' at most, shape kept' if inner.keep_ratio else ''}"
