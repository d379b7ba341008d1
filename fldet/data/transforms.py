"""Steps of a pipeline with MMDetection's results and fewer copies of the image."""

from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs as MMDetPackDetInputs
from mmdet.datasets.transforms import RandomFlip as MMDetRandomFlip

from fldet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomFlip(MMDetRandomFlip):
    """Flips as MMDetection does, but writes the image into the memory it had.

    MMDetection leaves a view that runs backwards, which packing has to copy byte by byte. The
    array of the step before is overwritten: a step that keeps its image must hand on a copy.

    Args:
        **kwargs: of MMDetection's ``RandomFlip``: ``prob``, ``direction``.
    """

    def _flip(self, results: dict[str, Any]) -> None:
        image = np.ascontiguousarray(results["img"])
        super()._flip(results)
        mmcv.imflip_(image, results["flip_direction"])
        results["img"] = image


@TRANSFORMS.register_module()
class PackDetInputs(MMDetPackDetInputs):
    """Packs an image and its truth as MMDetection does, but leaves the image in its memory.

    ``inputs`` is (C, H, W) with equal values and with the strides of channels_last; MMDetection
    copies it into planes.

    Args:
        meta_keys: what goes into the meta data of the sample.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Returns ``inputs`` and ``data_samples``."""
        packed: dict[str, Any] = super().transform({k: results[k] for k in results if k != "img"})
        if "img" in results:
            image = results["img"]
            image = image[..., None] if image.ndim == 2 else image
            packed["inputs"] = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return packed
