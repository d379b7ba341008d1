"""Numbers of a config that cannot be: one table of bounds, by the place of a value.

Most would end a run in the midst of MMEngine's or torch's code, some in silence.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple

from fldet.config.augment import PRESETS
from fldet.errors import shorten
from fldet.numeric import is_number


class Bound(NamedTuple):
    """What a value must be: whether it is, in words, and what to write instead."""

    holds: Callable[[Any], bool]
    expected: str
    hint: str = ""


def _is_number(value: Any) -> bool:
    return is_number(value) or (isinstance(value, float) and math.isinf(value))


_MOST = 2**63 - 1  # of a whole number: what counters hold


def _at_least(least: int, hint: str = "", expected: str = "") -> Bound:
    def holds(value: Any) -> bool:
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        return is_whole and least <= value <= _MOST

    return Bound(holds, expected or f"a whole number, at least {least}", hint)


def _number(low: float, high: float, expected: str) -> Bound:
    return Bound(lambda value: _is_number(value) and low <= value <= high, expected)


def _each(bound: Bound) -> Bound:
    """Returns the bound of a number for all numbers of a list, of lists too."""

    def holds(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return bool(value) and all(map(holds, value))
        return bound.holds(value)

    return Bound(holds, bound.expected)


_LARGEST = float.fromhex("0x1.fffffffffffffp+1023")
_POSITIVE = Bound(lambda value: _is_number(value) and value > 0, "numbers greater than 0")
_FINITE = _number(0, _LARGEST, "a finite number, at least 0")
_SHARE = _number(0, 1, "a number from 0 to 1")
_NO_VALIDATION = "without validation: val_cfg=None val_dataloader=None val_evaluator=None"
_LENGTH = Bound(  # as 1e5 too
    lambda value: _is_number(value) and 1 <= value <= _MOST and value == int(value),
    "a whole number, at least 1",
)
_DICT = Bound(lambda value: not value, "a dict")  # which passes in any place
_DICTS = Bound(lambda value: isinstance(value, (list, tuple)) or value is False, "a list of dicts")
DECODERS = ("exact", "fast")
_DECODER = Bound(
    lambda value: isinstance(value, str) and value in DECODERS,
    f"one of {', '.join(map(repr, DECODERS))}",
)
_PRESET = Bound(
    lambda value: isinstance(value, str) and value in PRESETS,
    f"one of {', '.join(map(repr, PRESETS))}",
)
_THRESHOLD = Bound(
    lambda value: value is False or (_is_number(value) and 0 < value <= 1),
    "a share of the images, above 0 and at most 1; False for none",
)
_TEXT = Bound(lambda value: isinstance(value, (str, os.PathLike)), "a text", "in quotes: '2017'")

# Where in the config, list indices left out. None is let through: it stands for a default.
BOUNDS = (
    (r"^((train|val|test)_(dataloader|cfg)|(tta_)?model|optim_wrapper|default_hooks)$", _DICT),
    (r"^(randomness|auto_scale_lr|env_cfg|log_processor|visualizer)$", _DICT),
    (r"_dataloader\..*(metainfo|data_prefix|sampler|batch_sampler)$", _DICT),
    (r"_dataloader\..*pipeline$|^custom_hooks$|^(val|test)_evaluator$", _DICTS),
    (r"^augment$", _PRESET),
    (r"^decoder$", _DECODER),
    (r"^oversample$", _THRESHOLD),
    (r"^folds$", _TEXT),
    (r"^fold$", _at_least(1)),
    (r"^train_cfg\.(max_iters|max_epochs)$", _LENGTH),
    (r"^train_cfg\.val_interval$", _LENGTH._replace(hint=_NO_VALIDATION)),
    (r"^train_cfg\.val_begin$", _at_least(0)),
    (r"_dataloader\.batch_size$", _at_least(1)),
    (r"_dataloader\.num_workers$", _at_least(0, "0 loads in the main process")),
    (r"_dataloader\.prefetch_factor$", _at_least(1)),
    (r"^default_hooks\.logger\.interval$", _at_least(1, "a large number logs nothing")),
    (
        r"^default_hooks\.checkpoint\.interval$",
        _at_least(-1, "-1 saves at the end alone", "a whole number of iterations or epochs"),
    ),
    (r"^default_hooks\.checkpoint\.max_keep_ckpts$", _at_least(-1, "-1 keeps all")),
    (r"^log_processor\.window_size$", _at_least(1)),
    (r"^optim_wrapper\.optimizer\.(lr|weight_decay)$", _FINITE),
    (r"^optim_wrapper\.optimizer\.momentum$", _SHARE),
    (r"^optim_wrapper\.accumulative_counts$", _at_least(1)),
    (r"^optim_wrapper\.clip_grad\.max_norm$", _POSITIVE),
    (r"^auto_scale_lr\.base_batch_size$", _at_least(1)),
    (r"^randomness\.seed$", _number(0, 2**32 - 1, "a whole number from 0 to 2**32 - 1")),
    (r"^(tta_)?model\b.*\.num_classes$", _at_least(1)),
    (r"\.loss_cls\.gamma$", _FINITE),
    (r"\.loss_cls\.class_weight$", _each(_FINITE)),
    (r"\.loss_\w+\.loss_weight$", _FINITE),
    (r"\.(nms|test_cfg)\.(score_thr|iou_threshold)$", _SHARE),
    (r"\.assigner\.(pos_iou_thr|neg_iou_thr|min_pos_iou)$", _each(_SHARE)),
    (r"\.test_cfg\.(nms_pre|max_per_img)$", _at_least(-1, "-1 keeps all")),
    (r"\banchor_generator\.(strides|ratios|scales|octave_base_scale)$", _each(_POSITIVE)),
    (r"\banchor_generator\.scales_per_octave$", _at_least(1)),
    (r"\bdata_preprocessor\.(pad_size_divisor|std)$", _each(_POSITIVE)),
    (r"(pipeline|transforms)\.(scale|scales|img_scale|size_divisor)$", _each(_POSITIVE)),
    (r"\.max_broken_images$", _at_least(0)),
    (r"(^|\.)(data_root|ann_file|only_images|without_images)$|\.data_prefix\.\w+$", _TEXT),
)


def out_of_bounds(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Yields message, expected and hint for each value below ``path`` that cannot be."""
    place = ".".join(part for part in path if not part.isdigit())
    for pattern, bound in BOUNDS:
        # other detectors have dicts in some of these places
        if value is not None and not isinstance(value, Mapping) and re.search(pattern, place):
            if not bound.holds(value):
                yield f"{'.'.join(path)} is {shorten(value)}", bound.expected, bound.hint
                return
            break
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from out_of_bounds(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from out_of_bounds(item, (*path, str(index)))
