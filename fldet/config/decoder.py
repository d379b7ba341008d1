"""The line ``decoder``: JPEGs decoded at a half, a quarter or an eighth of their sides.

That is done where all that a pipeline makes of an image is smaller still. It takes less
time, and other pixels come out: a part of the picture is averaged, where ``Resize`` alone would
leave most of its pixels out.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from fldet.config.augment import is_pair
from fldet.config.bounds import DECODERS
from fldet.data.slicing.views import decoded_in_full
from fldet.errors import ConfigError, UsageError

_REPLACED = {"Resize", "fldet.Resize", "mmdet.Resize"}  # by fldet.Resize, which makes equal sizes
_BEFORE = {"LoadAnnotations", "PhotoMetricDistortion"}  # they look at no size of the image


def with_decoder(pipeline: Sequence[Mapping[str, Any]], decoder: str) -> list[dict[str, Any]]:
    """Returns the steps of a pipeline that decodes images so.

    Raises:
        ConfigError: ``fast``, and the images are not resized right after they are loaded.
        UsageError: there is no such decoder.
    """
    if decoder not in DECODERS:
        raise UsageError(f"unknown decoder {decoder!r}", expected=" or ".join(DECODERS))
    steps = decoded_in_full(pipeline)
    if decoder == "exact":
        return steps
    names = [str(step.get("type")).rpartition(".")[2] for step in steps]
    after = [number for number, name in enumerate(names) if number and name not in _BEFORE]
    place = after[0] if after else 0
    found = _largest(names[place], steps[place]) if names[:1] == ["LoadImageFromFile"] else None
    if found is None:
        raise ConfigError(
            f"decoder = 'fast': this pipeline has {', '.join(names[: place + 1]) or 'no steps'}",
            expected="LoadImageFromFile, LoadAnnotations, then Resize, RandomResize or "
            "RandomChoiceResize with a scale in pixels",
            hint="decoder = 'exact'",
        )
    largest, keep_ratio = found
    steps[0] |= {"type": "fldet.LoadImageFromFile", "largest": largest, "keep_ratio": keep_ratio}
    steps[place]["type" if names[place] == "Resize" else "resize_type"] = "fldet.Resize"
    return steps


def _largest(name: str, step: Mapping[str, Any]) -> tuple[tuple[int, int], bool] | None:
    """Returns the largest scale of a step that resizes, and whether it keeps the ratio."""
    scales: Any = step.get("scales" if name == "RandomChoiceResize" else "scale")
    ratio = 1.0
    if name == "RandomResize" and is_pair(scales):
        ratio = max(step.get("ratio_range", (0.1, 2.0)))
    elif name not in ("Resize", "RandomResize", "RandomChoiceResize"):
        return None
    if str(step.get("resize_type" if name != "Resize" else "type", "Resize")) not in _REPLACED:
        return None
    scales = [scales] if is_pair(scales) else scales
    if not (isinstance(scales, (list, tuple)) and scales and all(map(is_pair, scales))):
        return None
    if name == "RandomResize":  # either side is drawn by itself
        scales = [tuple(map(max, zip(*scales, strict=True)))]
    long = max(max(one) for one in scales) * ratio
    short = max(min(one) for one in scales) * ratio
    return (ceil(long), ceil(short)), bool(step.get("keep_ratio", False))
