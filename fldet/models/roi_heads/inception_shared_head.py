"""The second half of Inception-ResNet-v2, computed for each region (Huang et al., 1611.10012)."""

from typing import Any

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from fldet.models.backbones.inception_resnet_v2 import (
    InceptionHalf,
    Layers,
    block8,
    mixed_7a,
    trunk_channels,
)
from fldet.registry import MODELS


@MODELS.register_module()
class InceptionResNetV2SharedHead(InceptionHalf):
    """``Mixed_7a``, the ``Block8`` and a 1x1 convolution to 1536 channels, as a shared head.

    The first one has a stride of 2 and no border: 17 pixels become 8, as in the classifier.
    Layers have timm's names, as those of ``fldet.InceptionResNetV2``; the last ``Block8`` counts
    beside ``repeats``, is not scaled and has no ReLU.

    Args:
        in_channels: of the pooled features; where they are not the network's own 1088 times
            ``width``, a 1x1 convolution, ``project``, makes them so.
        repeats: how many ``Block8`` before the last one.
        width: factor of all numbers of channels but ``in_channels``.
        norm_cfg: of the norms; batch norm with eps 0.001 if None.
        norm_eval: whether batch norms keep their statistics in training.
        init_cfg: how the weights start; He's initialization if None.

    Raises:
        ValueError: ``width`` is not positive.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        *,
        repeats: int = 9,
        width: float = 1.0,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(norm_eval, init_cfg)
        layers = Layers(width, norm_cfg)
        trunk = trunk_channels(layers)
        if in_channels not in (None, trunk):
            self.project = ConvModule(in_channels, trunk, 1)
        self.mixed_7a = mixed_7a(layers, trunk)
        channels = self.mixed_7a.out_channels
        self.repeat_2 = nn.Sequential(*(block8(layers, channels) for _ in range(repeats)))
        self.block8 = block8(layers, channels, scale=1.0, relu=False)
        self.conv2d_7b = layers.one(channels, 1536)
        self.out_channels = self.conv2d_7b.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns (R, 1536 * width, H', W') of (R, C, H, W) regions; H' is (H - 1) / 2."""
        if hasattr(self, "project"):
            x = self.project(x)
        return self.conv2d_7b(self.block8(self.repeat_2(self.mixed_7a(x))))
