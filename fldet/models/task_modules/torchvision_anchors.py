"""Anchors where torchvision's RetinaNet has them, for checkpoints that were trained there."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fldet.models.task_modules.anchor_generator import AnchorGenerator
from fldet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class TorchvisionAnchorGenerator(AnchorGenerator):
    """Anchors of ``torchvision.models.detection.retinanet_resnet50_fpn``, in whole pixels.

    They differ from the paper's in two points (torchvision's ``_default_anchorgen`` and
    ``AnchorGenerator``). Sides of squares are cut off to whole pixels, 32, 40 and 50 on P3, and the
    corners of anchors are rounded. And locations of a level are the side of the padded image,
    divided by the number of cells and rounded down, apart: 800 pixels have 13 cells on P6, 61
    pixels apart, not 64. The image is taken to be as large as the first map times its stride.

    Arguments are those of ``fldet.AnchorGenerator``; ``strides`` count where there is one level,
    and for the size of the image.
    """

    def gen_single_level_base_anchors(
        self, base_size: float, scales: Tensor, ratios: Tensor, center: Any = None
    ) -> Tensor:
        """Returns the (A, 4) anchors around (0, 0) of a level, xyxy in pixels."""
        sides = (base_size * scales).floor()
        anchors: Tensor = super().gen_single_level_base_anchors(1, sides, ratios, center)
        return anchors.round()

    def fitted(self, featmap_sizes: Sequence[Any]) -> AnchorGenerator:
        """Returns a generator with the strides that maps of these sizes (H, W) have."""
        height, width = (
            int(cells) * stride
            for cells, stride in zip(featmap_sizes[0], self.strides[0][::-1], strict=True)
        )
        result = copy.copy(self)
        result.strides = [(width // int(w), height // int(h)) for h, w in featmap_sizes]
        return result

    def grid_priors(
        self, featmap_sizes: Sequence[Any], dtype: torch.dtype = torch.float32, device: Any = "cuda"
    ) -> list[Tensor]:
        """Returns for each level the (H * W * A, 4) anchors of a map of size (H, W)."""
        generator = self.fitted(featmap_sizes)
        return [
            generator.single_level_grid_priors(size, level, dtype=dtype, device=device)
            for level, size in enumerate(featmap_sizes)
        ]


def fitted_to(generator: Any, featmap_sizes: Sequence[Any]) -> Any:
    """Returns an anchor generator whose single levels have the strides of maps of these sizes."""
    if isinstance(generator, TorchvisionAnchorGenerator):
        return generator.fitted(featmap_sizes)
    return generator
