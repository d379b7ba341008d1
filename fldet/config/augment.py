"""The line ``augment``: what is done to training images, by the size of the data.

A preset puts steps in the place of the one ``Resize`` of a pipeline, so that everything that reads
the resolved config sees them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fldet.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A way to augment; each flips too."""

    ratios: tuple[float, float]  # of the config's scale, from which a random one is drawn
    colours: bool  # whether they are distorted


NONE = "none"
PRESETS = {
    NONE: None,
    "medium": Preset(ratios=(0.8, 1.25), colours=False),  # for thousands of images
    "small": Preset(ratios=(0.6, 1.6), colours=True),  # for hundreds
}
# Steps beside which a preset can stand: none of them changes size or colours at random.
_PLAIN = {"LoadImage", "LoadImageFromFile", "LoadAnnotations", "Resize", "RandomFlip"}
_PLAIN |= {"PackDetInputs"}


def augmented(pipeline: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Returns the steps of a training pipeline with those of a preset among them.

    Images are resized to the config's scale times a random ratio, and what is larger than the scale
    is cropped back to it, so that a training step costs no more than without.

    Raises:
        ConfigError: the pipeline has not one ``Resize`` that keeps the ratio, after the boxes are
            loaded, or changes images at random already.
    """
    preset = PRESETS[name]
    if preset is None:
        return [dict(step) for step in pipeline]
    names = [_name(step) for step in pipeline]
    _require_plain(pipeline, names, name)
    if preset.colours and any(step.get("color_type", "color") != "color" for step in pipeline):
        raise ConfigError(
            f"augment = {name!r} distorts colours, and the pipeline of train_dataloader loads none",
            expected="LoadImageFromFile without color_type",
            hint="augment = 'medium'",
        )
    steps: list[dict[str, Any]] = []
    for step, kind in zip(pipeline, names, strict=True):
        steps += _in_place_of_resize(step, preset) if kind == "Resize" else [dict(step)]
        if kind == "Resize" and "RandomFlip" not in names:
            steps.append({"type": "fldet.RandomFlip", "prob": 0.5})
    return steps


def _in_place_of_resize(resize: Mapping[str, Any], preset: Preset) -> list[dict[str, Any]]:
    scale = tuple(resize["scale"])
    others = {key: resize[key] for key in resize.keys() - {"type", "scale", "keep_ratio"}}
    steps: list[dict[str, Any]] = [
        {
            "type": "RandomResize",
            "scale": scale,
            "ratio_range": preset.ratios,
            "resize_type": "fldet.Resize",
            "keep_ratio": True,
            **others,
        },
        {"type": "fldet.RandomCrop", "scale": scale},
        # what is left of a box at the edge of a crop; no box of a pixel gets as small by resizing
        {"type": "FilterAnnotations", "min_gt_bbox_wh": (0.5, 0.5), "keep_empty": False},
    ]
    if preset.colours:  # the colours of some classes are all that tells them apart: none is swapped
        steps.append({"type": "fldet.PhotoMetricDistortion", "swap_channels": False})
    return steps


def _require_plain(pipeline: Sequence[Mapping[str, Any]], names: list[str], preset: str) -> None:
    others = [name for name in names if name not in _PLAIN]
    resizes = [step for step, name in zip(pipeline, names, strict=True) if name == "Resize"]
    fault = ""
    if others:
        fault = f"has {', '.join(others)} beside the plain steps"
    elif len(resizes) != 1:
        fault = f"has {len(resizes) or 'no'} Resize"
    elif not (resizes[0].get("keep_ratio") and is_pair(resizes[0].get("scale"))):
        fault = "has a Resize that warps images, or has no scale=(WIDTH, HEIGHT) in pixels"
    elif "LoadAnnotations" not in names[: names.index("Resize")]:
        fault = "does not load the boxes before Resize"
    if fault:
        raise ConfigError(
            f"augment = {preset!r}: the pipeline of train_dataloader {fault}",
            expected="LoadImageFromFile, LoadAnnotations, dict(type='Resize', scale=(WIDTH, "
            "HEIGHT), keep_ratio=True), RandomFlip and PackDetInputs alone",
            hint="augment = 'none', and steps of your own in the pipeline",
        )


def _name(step: Mapping[str, Any]) -> str:
    return str(step.get("type")).rpartition(".")[2]


def is_pair(scale: Any) -> bool:
    """Returns whether a scale is two numbers of pixels."""
    return (
        isinstance(scale, (list, tuple))
        and len(scale) == 2
        and all(type(side) is int for side in scale)
    )
