"""The passthrough layer of YOLOv2 (arXiv 1612.08242, Sec. 2, "Fine-Grained Features")."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from fldet.models.backbones.darknet19 import leaky_conv
from fldet.registry import MODELS


@MODELS.register_module()
class PassthroughNeck(BaseModule):
    """Puts a map of twice the size beside the last one, its pixels stacked into channels.

    Two 3x3 convolutions on the last map; a 1x1 convolution on the larger one, whose map is
    reorganised into four times the channels at half the size and goes before the other in one 3x3
    convolution. DEVIATION D27: the 1x1 convolution is that of the authors' yolov2.cfg; the paper
    stacks all channels. The convolutions are in the order of that file.

    Args:
        in_channels: of the two maps, the larger map first.
        out_channels: of the three 3x3 convolutions.
        passthrough_channels: of the 1x1 convolution, a multiple of 4.
        norm_cfg: of the norms.
        init_cfg: as of every module.

    Raises:
        ValueError: ``passthrough_channels`` is no multiple of 4.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024),
        *,
        out_channels: int = 1024,
        passthrough_channels: int = 64,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if passthrough_channels < 4 or passthrough_channels % 4:
            raise ValueError(
                f"passthrough_channels must be a multiple of 4, got {passthrough_channels}"
            )
        fine, coarse = in_channels
        self.deep = nn.Sequential(
            leaky_conv(coarse, out_channels, 3, norm_cfg),
            leaky_conv(out_channels, out_channels, 3, norm_cfg),
        )
        self.passthrough = leaky_conv(fine, passthrough_channels, 1, norm_cfg)
        joined = 4 * passthrough_channels + out_channels
        self.fuse = leaky_conv(joined, out_channels, 3, norm_cfg)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Returns one (N, out_channels, H, W) map of maps (N, C, 2 H, 2 W) and (N, C', H, W)."""
        fine, coarse = maps
        deep = self.deep(coarse)
        return (self.fuse(torch.cat([reorg(self.passthrough(fine)), deep], dim=1)),)


def reorg(x: Tensor) -> Tensor:
    """Returns (N, 4 C, H / 2, W / 2) with the values of (N, C, H, W), in darknet's order.

    C is a multiple of 4, H and W are even. This is not ``torch.pixel_unshuffle``: darknet's loop
    (``reorg_cpu`` in blas.c, as the region network calls it) reads the memory of the map as one of
    C / 4 channels and twice the size, and takes the pixels of 2x2 blocks apart in that.
    """
    count, channels, height, width = x.shape
    blocks = x.reshape(count, channels // 4, height, 2, width, 2)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(count, 4 * channels, height // 2, width // 2)
