"""DarkNet-19, the backbone of YOLOv2 (arXiv 1612.08242, Sec. 3 and Table 6)."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from fldet.registry import MODELS

# Channels of the convolutions of each stage, in multiples of the first; 3x3 and 1x1 take turns.
STAGES = (
    (1,),
    (2,),
    (4, 2, 4),
    (8, 4, 8),
    (16, 8, 16, 8, 16),
    (32, 16, 32, 16, 32),
)


@MODELS.register_module()
class DarkNet19(BaseModule):
    """The 18 convolutions of DarkNet-19 before its classifier, in six stages.

    Each convolution has a batch norm and a leaky ReLU of slope 0.1; a maximum over 2x2 pixels is
    between two stages, so that stage i has a stride of 2^i. The convolutions are in the order of
    darknet's files. Height and width of the images are multiples of the last stride that is asked
    for, else the maps of two stages are not twice as large as one another.

    Args:
        base_channels: channels of the first convolution, an even number; the last has 32 times as
            many.
        out_indices: stages whose maps are returned, from 0 to 5.
        norm_cfg: of the norms; the authors' code moves its statistics by 0.01 in each step.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` for weights of
            ``tools/convert_darknet.py``.

    Raises:
        ValueError: ``base_channels`` is odd, or a stage does not exist.
    """

    def __init__(
        self,
        *,
        base_channels: int = 32,
        out_indices: Sequence[int] = (4, 5),
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if base_channels < 2 or base_channels % 2:
            raise ValueError(f"base_channels must be even and at least 2, got {base_channels}")
        if not out_indices or not set(out_indices) <= set(range(len(STAGES))):
            raise ValueError(f"out_indices must be of 0 to {len(STAGES) - 1}, got {out_indices}")
        self.out_indices = tuple(out_indices)
        self.pool = nn.MaxPool2d(2, 2)
        channels = 3
        for index, factors in enumerate(STAGES[: max(out_indices) + 1]):
            layers = []
            for place, factor in enumerate(factors):
                kernel = 1 if place % 2 else 3
                layers.append(leaky_conv(channels, factor * base_channels, kernel, norm_cfg))
                channels = factor * base_channels
            setattr(self, f"stage{index}", nn.Sequential(*layers))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns for (N, 3, H, W) images the (N, C, H / 2^i, W / 2^i) maps of the stages."""
        maps, x = [], images
        for index in range(max(self.out_indices) + 1):
            x = getattr(self, f"stage{index}")(self.pool(x) if index else x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)


def leaky_conv(
    in_channels: int, out_channels: int, kernel: int, norm_cfg: dict[str, Any] | None
) -> ConvModule:
    """Returns a convolution as darknet's: of stride 1, with a norm and a leaky ReLU."""
    return ConvModule(
        *(in_channels, out_channels, kernel),
        padding=kernel // 2,
        norm_cfg=norm_cfg or {"type": "BN"},
        act_cfg={"type": "LeakyReLU", "negative_slope": 0.1},
    )
