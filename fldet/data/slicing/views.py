"""Views of a picture that the network looks at one by one: slices, the whole, mirrored, larger."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fldet.data.slicing.slices import check_slices, slices
from fldet.errors import ConfigError, UsageError, shorten
from fldet.numeric import is_number

if TYPE_CHECKING:
    from fldet.ops.merge import Seen

Region = tuple[int, int, int, int]  # xyxy in pixels of the picture

# Resizing to ten times the size has a hundred times the pixels.
SCALES = (0.1, 4.0)


@dataclass(frozen=True)
class View:
    """One look at a part of a picture."""

    region: Region
    is_slice: bool  # or the whole picture
    flipped: bool = False  # left and right exchanged
    scale: float = 1.0  # of the size that the test pipeline resizes to


@dataclass(frozen=True)
class Views:
    """How a picture is looked at; by default once, as a whole.

    Args:
        size: width and height of the slices in pixels of the picture; None cuts none.
        overlap: share of a slice that neighbours have in common, at least.
        whole: look at the whole picture too, for objects that no slice holds.
        flip: look at everything mirrored too.
        scales: look at everything in these sizes too, relative to that of the test pipeline.

    Raises:
        UsageError: slices that cannot be, ``whole`` without slices, or a scale that is none.
    """

    size: int | None = None
    overlap: float = 0.2
    whole: bool = False
    flip: bool = False
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.size is not None:
            check_slices(self.size, self.overlap)
        elif self.whole:
            raise UsageError(
                "a view of the whole picture besides slices, and no slices",
                expected="the size of the slices: --slice 640",
            )
        low, high = SCALES
        for scale in self.scales:
            if not (is_number(scale) and low <= scale <= high):
                raise UsageError(
                    f"a scale of {shorten(scale)}", expected=f"a number from {low} to {high}"
                )

    def __bool__(self) -> bool:
        """Returns whether there is more than one look at the whole picture."""
        return self != Views(overlap=self.overlap)

    @property
    def all_scales(self) -> tuple[float, ...]:
        """1 and the other scales, each once."""
        return tuple(dict.fromkeys((1.0, *self.scales)))

    @property
    def tolerance(self) -> float:
        """So many pixels from the border of a slice a box touches it.

        Where a network sees a part of an object, it rarely puts the side on the last pixel.
        """
        return max(1.0, min(0.01, self.overlap / 4) * (self.size or 0))

    def of(self, width: int, height: int) -> list[View]:
        """Returns the views of a picture: its slices row by row, then the whole."""
        picture = (0, 0, width, height)
        if self.size is None or max(width, height) <= self.size:
            regions = [(picture, False)]
        else:
            cut = slices(width, height, self.size, self.overlap).tolist()
            regions = [(tuple(region), True) for region in cut]
            regions += [(picture, False)] * self.whole
        return [
            View(region, is_slice, flipped, scale)
            for region, is_slice in regions
            for scale in self.all_scales
            for flipped in (False, True)[: 1 + self.flip]
        ]


def parse_views(
    size: int | None, overlap: float, *, whole: bool, tta: Sequence[str] = ()
) -> Views | None:
    """Returns the views that options of the command line ask for, None where they ask for none.

    ``tta`` are the word ``flip`` and numbers, which are scales.
    """
    scales = []
    for word in tta:
        try:
            scales += [] if word == "flip" else [float(word)]
        except ValueError:
            raise UsageError(
                f"--tta {word}", expected="flip, or a scale as 1.25; may be repeated"
            ) from None
    views = Views(size, overlap, whole, "flip" in tta, tuple(scales))
    return views or None


def cut(loaded: Mapping[str, Any], view: View) -> dict[str, Any]:
    """Returns what a view shows of a loaded picture, as a picture of its own.

    ``loaded`` has ``img`` (H, W, 3) and what else describes the picture; boxes are not taken.
    """
    x1, y1, x2, y2 = view.region
    image = loaded["img"][y1:y2, x1:x2]
    image = np.ascontiguousarray(image[:, ::-1] if view.flipped else image)
    shape = image.shape[:2]
    return {**loaded, "img": image, "img_shape": shape, "ori_shape": shape}


def seen_in(view: View, boxes: Any, scores: Any, labels: Any) -> "Seen":
    """Returns detections in a view, boxes (N, 4) xyxy in its pixels, where they are in the picture.

    In a view that is mirrored the boxes are so too.
    """
    from fldet.ops.merge import Seen  # which comes with torch

    x, y, right, _ = view.region
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    if view.flipped:
        boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [right - x, 0, right - x, 0]
    return Seen(view.region, view.is_slice, boxes + np.array([x, y, x, y]), scores, labels)


def decoded_in_full(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the steps of a pipeline in which ``LoadImage`` decodes all pixels."""
    of_parts = {"largest", "keep_ratio"}
    return [
        {key: step[key] for key in step if "largest" not in step or key not in of_parts}
        for step in pipeline
    ]


def rescaled(pipeline: Sequence[Mapping[str, Any]], scale: float) -> list[dict[str, Any]]:
    """Returns the steps of a test pipeline that resizes to another size, of images in full.

    Raises:
        ConfigError: it has no ``Resize`` with a ``scale`` that keeps the ratio: what warps all
            images to one size is for a network of that size.
    """
    steps = decoded_in_full(pipeline)
    if scale == 1:
        return steps
    resizes = [step for step in steps if str(step.get("type")).rpartition(".")[2] == "Resize"]
    if not any(step.get("scale") and step.get("keep_ratio") for step in resizes):
        raise ConfigError(
            f"no look in {scale:g} times the size: the test pipeline resizes to none, or warps",
            expected="a Resize with scale=(WIDTH, HEIGHT) and keep_ratio=True in it",
            hint="leave the scales out of --tta",
        )
    for step in resizes:
        sides = step["scale"] if isinstance(step["scale"], (list, tuple)) else [step["scale"]] * 2
        step["scale"] = tuple(max(1, round(scale * side)) for side in sides)
    return steps


def pipeline_of_views(pipeline: Sequence[Mapping[str, Any]], views: Views) -> list[dict[str, Any]]:
    """Returns the steps of a test pipeline that makes views of each picture, for ``ModelOfViews``.

    Raises:
        ConfigError: it does not begin by loading an image.
    """
    load, *steps = decoded_in_full(pipeline)
    if "LoadImage" not in str(load.get("type")):
        raise ConfigError(
            f"the test pipeline begins with {load.get('type')}",
            expected="LoadImageFromFile as its first transform",
        )
    rescaled(steps, max(views.all_scales, key=lambda scale: abs(scale - 1)))
    return [load, {"type": "fldet.MakeViews", **asdict(views), "steps": steps}]
