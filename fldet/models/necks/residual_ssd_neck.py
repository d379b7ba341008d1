"""The maps of SSD with a residual network: extra blocks for large objects, prediction modules."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from fldet.registry import MODELS


class ResidualBlock(BaseModule):
    """A residual block with a projection, ``4 * width`` channels out (the authors' ResBody).

    Both branches begin with the same kernel and stride, without a border. The layers are named as
    in the authors' code: 1, and 2a, 2b (3x3), 2c (1x1).

    Args:
        in_channels: of the map.
        width: channels of the two inner layers.
        kernel_size: of the first layer of each branch.
        stride: of the same.
        norm_cfg: config of the norms.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        first = {"kernel_size": kernel_size, "stride": stride, "norm_cfg": norm_cfg}
        self.branch1 = ConvModule(in_channels, 4 * width, act_cfg=None, **first)
        self.branch2a = ConvModule(in_channels, width, **first)
        self.branch2b = ConvModule(width, width, 3, padding=1, norm_cfg=norm_cfg)
        self.branch2c = ConvModule(width, 4 * width, 1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, 4 * width, h, w) of a map (N, C, H, W), rectified."""
        return (self.branch1(x) + self.branch2c(self.branch2b(self.branch2a(x)))).relu()


class SSDEncoder(BaseModule):
    """The maps of a backbone, and further ones below the last of them, each by a residual block.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        extra_channels: channels of every further map, a multiple of 4.
        kernel_sizes: of the blocks of the further maps.
        strides: of the same.
        norm_cfg: config of the norms, batch norms if None.
        init_cfg: of the weights; if None that of the authors, Gaussians of sigma 0.01 where a norm
            follows.

    Raises:
        ValueError: ``kernel_sizes`` and ``strides`` differ in length, or ``extra_channels`` is no
            multiple of 4.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        extra_channels: int = 1024,
        kernel_sizes: Sequence[int] = (2, 2, 2, 2, 2),
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or _INIT)
        if len(kernel_sizes) != len(strides):
            raise ValueError(
                f"expected one stride for each of {len(kernel_sizes)} kernel_sizes, got {strides}"
            )
        if extra_channels % 4:
            raise ValueError(f"extra_channels must be a multiple of 4, got {extra_channels}")
        self.norm_cfg = norm_cfg or {"type": "BN"}
        self.channels = [*in_channels, *[extra_channels] * len(strides)]
        sources = self.channels[len(in_channels) - 1 :]
        self.extra_layers = nn.ModuleList(
            ResidualBlock(source, extra_channels // 4, kernel, stride, norm_cfg=self.norm_cfg)
            for source, kernel, stride in zip(sources, kernel_sizes, strides, strict=False)
        )

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns the maps of the backbone and the further ones, finest first."""
        maps = list(inputs)
        for block in self.extra_layers:
            maps.append(block(maps[-1]))
        return maps

    def prediction_modules(self, channels: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
        """Returns a block without stride for each map, which keeps the head's gradient off it.

        It is module (c) of Fu et al. 2017, Sec. 3.2 and Fig. 2.
        """
        if len(widths) != len(channels):
            raise ValueError(f"expected one width for each of {len(channels)} maps, got {widths}")
        return nn.ModuleList(
            ResidualBlock(source, width, norm_cfg=self.norm_cfg)
            for source, width in zip(channels, widths, strict=True)
        )


@MODELS.register_module()
class ResidualSSDNeck(SSDEncoder):
    """The maps of SSD513 and SSD321, each after a prediction module of its own.

    Fu et al. 2017, Sec. 3.1 and 3.2; channels, kernels and strides are those of the authors' code.
    The maps have ``4 * width`` channels.

    Args:
        widths: of the prediction modules, one a map.
        **kwargs: see ``SSDEncoder``.

    Raises:
        ValueError: the number of widths is not that of the maps; see ``SSDEncoder``.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (128, 512, 256, 256, 256, 256, 256),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.predictions = self.prediction_modules(self.channels, widths)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns (N, 4 * width, h, w) for each map, finest first, of the backbone's maps."""
        maps = self.encode(inputs)
        return tuple(module(x) for module, x in zip(self.predictions, maps, strict=True))


_INIT = [
    {"type": "Normal", "layer": "Conv2d", "std": 0.01},
    {"type": "Xavier", "layer": "ConvTranspose2d", "distribution": "uniform"},
    {"type": "Constant", "layer": "_BatchNorm", "val": 1},
]
