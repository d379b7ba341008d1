"""The views of a picture as a step of a test pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcv.transforms import BaseTransform, Compose

from fldet.data.slicing.views import View, Views, cut, rescaled
from fldet.registry import TRANSFORMS


@dataclass(frozen=True)
class ViewsOfPicture:
    """A picture of a test, view by view."""

    sample: Any  # ``DetDataSample`` of the picture, with its size and its truth
    size: tuple[int, int]  # width and height in pixels
    views: list[tuple[View, dict[str, Any]]]  # each as packed for a model's ``test_step``


@TRANSFORMS.register_module()
class MakeViews(BaseTransform):
    """Makes the views of a loaded picture, and does the other steps to each.

    The steps that load annotations are for the picture alone: its truth stays in its pixels.

    Args:
        steps: of the pipeline after the image is loaded.
        **views: of ``fldet.data.slicing.views.Views``: ``size``, ``overlap``, ``whole``, ``flip``,
            ``scales``.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]], **views: Any) -> None:
        views["scales"] = tuple(views.get("scales", ()))
        self.views = Views(**views)
        alone = [step for step in steps if "Annotations" not in step["type"]]
        self._of_view = {
            scale: Compose(_built(rescaled(alone, scale))) for scale in self.views.all_scales
        }
        truth = [step for step in steps if "Annotations" in step["type"] or "Pack" in step["type"]]
        self._of_picture = Compose(_built(truth))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``picture``, a ``ViewsOfPicture``."""
        height, width = results["img_shape"][:2]
        views = [
            (view, self._of_view[view.scale](cut(results, view)))
            for view in self.views.of(width, height)
        ]
        truth = {key: value for key, value in results.items() if key != "img"}
        sample = self._of_picture({**truth, "scale_factor": (1.0, 1.0)})["data_samples"]
        return {"picture": ViewsOfPicture(sample, (width, height), views)}


def _built(steps: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [TRANSFORMS.build(dict(step)) for step in steps]
