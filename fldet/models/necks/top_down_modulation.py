"""Top-down modulation: coarse maps brought down to finer ones (Shrivastava et al., 1612.06851)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from fldet.registry import MODELS


@MODELS.register_module()
class TopDownModulation(BaseModule):
    """One map out of several, from the coarsest on: for RPN and regions alike.

    Module i takes map i by a 3x3 convolution (lateral) and the module above it, for the last one
    the coarsest map, by another (top-down), whose result is enlarged where map i is larger. A 1x1
    convolution joins both, one after the other in the channels. Each convolution has a ReLU.
    DEVIATION D43: the channels and the way to enlarge are fldet's choice.

    Args:
        in_channels: of the maps, finest first, two or more.
        lateral_channels: of each module, finest first; one less than maps.
        top_down_channels: of the same.
        out_channels: of the same; the first is that of the result.
        upsample_mode: ``nearest`` or ``bilinear``.
        norm_cfg: of the norms; none if None.
        init_cfg: how the weights start; He's initialization if None.

    Raises:
        ValueError: lengths do not fit the number of maps, or the mode is none of these.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (320, 1088),
        *,
        lateral_channels: Sequence[int] = (256,),
        top_down_channels: Sequence[int] = (256,),
        out_channels: Sequence[int] = (512,),
        upsample_mode: str = "nearest",
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or {"type": "Kaiming", "layer": "Conv2d"})
        lists = (lateral_channels, top_down_channels, out_channels)
        if len(in_channels) < 2 or {len(one) for one in lists} != {len(in_channels) - 1}:
            raise ValueError(
                f"expected two maps or more and one module less than maps, got {in_channels} and "
                "lateral_channels, top_down_channels, out_channels "
                + ", ".join(str(one) for one in lists)
            )
        if upsample_mode not in ("nearest", "bilinear"):
            raise ValueError(f"upsample_mode must be nearest or bilinear, got {upsample_mode!r}")
        self.upsample_mode = upsample_mode
        above = [*out_channels[1:], in_channels[-1]]

        def layers(
            inputs: Sequence[int], outputs: Sequence[int], kernel: int, border: int
        ) -> nn.ModuleList:
            return nn.ModuleList(
                ConvModule(before, after, kernel, padding=border, norm_cfg=norm_cfg)
                for before, after in zip(inputs, outputs, strict=True)
            )

        self.lateral = layers(in_channels[:-1], lateral_channels, 3, 1)
        self.top_down = layers(above, top_down_channels, 3, 1)
        joined = [a + b for a, b in zip(lateral_channels, top_down_channels, strict=True)]
        self.join = layers(joined, out_channels, 1, 0)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Returns (N, out_channels[0], H, W) in the size of the finest of the (N, C, h, w) maps."""
        *fine, x = inputs
        for level in reversed(range(len(fine))):
            lateral, x = self.lateral[level](fine[level]), self.top_down[level](x)
            if x.shape[2:] != lateral.shape[2:]:
                x = F.interpolate(x, lateral.shape[2:], mode=self.upsample_mode)
            x = self.join[level](torch.cat([lateral, x], dim=1))
        return (x,)
