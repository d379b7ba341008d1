"""Inception-ResNet-v2 up to its second reduction (Szegedy et al., arXiv 1602.07261, Fig. 9 to 17).

Names of layers are timm's, so that a classifier's weights load into this half and into
``fldet.InceptionResNetV2SharedHead``, the other one. Layers of TensorFlow's slim differ from the
paper's figures in places (1088 channels for 1154); these are slim's, whose weights exist.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fldet.registry import MODELS

STEM = (
    *("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a"),
    *("conv2d_3b", "conv2d_4a", "maxpool_5a"),
)
HE = [
    {"type": "Kaiming", "layer": "Conv2d"},
    {"type": "Constant", "layer": "_BatchNorm", "val": 1},
]


class InceptionHalf(BaseModule):
    """What both halves of the network share: whether batch norms keep their statistics.

    Args:
        norm_eval: whether they do so in training.
        init_cfg: how the weights start; He's initialization if None.
    """

    def __init__(self, norm_eval: bool, init_cfg: Any) -> None:
        super().__init__(init_cfg or HE)
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> "InceptionHalf":
        """Sets the mode of all layers but batch norms with fixed statistics."""
        super().train(mode)
        for module in self.modules():
            if self.norm_eval and isinstance(module, _BatchNorm):
                module.eval()
        return self


@MODELS.register_module()
class InceptionResNetV2(InceptionHalf):
    """The first half of the network, before ``Mixed_7a``: maps of stride 8, and of 16 or again 8.

    Map 0 comes from the ``Block35`` (320 channels, stride 8), map 1 from the ``Block17`` (1088
    channels). With ``stride=8`` the reduction before the ``Block17`` leaves the size as it is and
    they have dilation 2 instead: with ``same`` padding their map at every second pixel is that of
    stride 16 (Huang et al., arXiv 1611.10012, Sec. 3.3).

    Args:
        stride: of map 1, 8 or 16.
        padding: ``same`` pads as TensorFlow does, a map of H pixels having H / 2, rounded up, after
            a stride of 2; ``valid`` does not pad where the classifier does not.
        repeats: how many ``Block35`` and ``Block17``.
        width: factor of all numbers of channels.
        out_indices: which maps are returned, (0, 1) or one of them.
        norm_cfg: of the norms; batch norm with eps 0.001 if None.
        norm_eval: whether batch norms keep their statistics in training.
        init_cfg: how the weights start; He's initialization if None.

    Raises:
        ValueError: ``stride``, ``padding``, ``width`` or ``out_indices`` is none of these.
    """

    def __init__(
        self,
        *,
        stride: int = 16,
        padding: str = "same",
        repeats: tuple[int, int] = (10, 20),
        width: float = 1.0,
        out_indices: Sequence[int] = (1,),
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(norm_eval, init_cfg)
        if stride not in (8, 16):
            raise ValueError(f"stride must be 8 or 16, got {stride}")
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be 'same' or 'valid', got {padding!r}")
        if not out_indices or not set(out_indices) <= {0, 1}:
            raise ValueError(f"out_indices must be of 0 and 1, got {out_indices}")
        self.out_indices = tuple(out_indices)
        layers = Layers(width, norm_cfg, same=padding == "same")
        self._add_stem(layers)
        self.mixed_5b = mixed_5b(layers, self.conv2d_4a.out_channels)
        fine = self.mixed_5b.out_channels
        self.repeat = nn.Sequential(*(block35(layers, fine) for _ in range(repeats[0])))
        self.mixed_6a = mixed_6a(layers, fine, stride=stride // 8)
        coarse = self.mixed_6a.out_channels
        layers = replace(layers, dilation=16 // stride)
        self.repeat_1 = nn.Sequential(*(block17(layers, coarse) for _ in range(repeats[1])))
        self.out_channels = tuple((fine, coarse)[index] for index in self.out_indices)

    def _add_stem(self, layers: "Layers") -> None:
        same = layers.same
        self.conv2d_1a = layers.one(3, 32, 3, 2, same=same)
        self.conv2d_2a = layers.one(self.conv2d_1a.out_channels, 32, 3, same=same)
        self.conv2d_2b = layers.one(self.conv2d_2a.out_channels, 64, 3)
        self.maxpool_3a = MaxPool(2, same=same)
        self.conv2d_3b = layers.one(self.conv2d_2b.out_channels, 80)
        self.conv2d_4a = layers.one(self.conv2d_3b.out_channels, 192, 3, same=same)
        self.maxpool_5a = MaxPool(2, same=same)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the (N, C, H / stride, W / stride) maps of (N, 3, H, W) images, finest first."""
        x = images
        for name in STEM:
            x = getattr(self, name)(x)
        maps = [self.repeat(self.mixed_5b(x))]
        if 1 in self.out_indices:
            maps.append(self.repeat_1(self.mixed_6a(maps[0])))
        return tuple(maps[index] for index in self.out_indices)


# --- its blocks ---


@dataclass(frozen=True)
class Layers:
    """Makes convolutions, each with a norm and a ReLU, of one network.

    Args:
        width: factor of the numbers of channels.
        norm_cfg: of the norms; batch norm with eps 0.001 if None.
        same: whether reductions pad, as TensorFlow does.
        dilation: of all convolutions.

    Raises:
        ValueError: ``width`` is not positive.
    """

    width: float = 1.0
    norm_cfg: dict[str, Any] | None = None
    same: bool = False
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")

    def scaled(self, full_width: int) -> int:
        """Returns how many channels a layer has that has ``full_width`` in the paper's network."""
        return max(round(full_width * self.width), 1)

    def one(
        self,
        in_channels: int,
        full_width: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        *,
        same: bool = True,
    ) -> ConvModule:
        """Returns a layer of ``full_width`` times the width of the network."""
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        borders = tuple(self.dilation * (side // 2) for side in sides)
        kind = StridedConv if same and stride > 1 else ConvModule
        return kind(
            *(in_channels, self.scaled(full_width), sides),
            stride=stride,
            padding=borders if same and stride == 1 else 0,
            dilation=self.dilation,
            norm_cfg=self.norm_cfg or {"type": "BN", "eps": 0.001},
        )

    def chain(self, in_channels: int, *steps: tuple[Any, ...]) -> nn.Sequential:
        """Returns layers one after the other, each given as ``one`` takes it: width, kernel.

        A stride as the third number makes a layer that pads if the network's reductions do.
        """
        made, channels = [], in_channels
        for step in steps:
            same = self.same if len(step) > 2 else True
            made.append(self.one(channels, *step, same=same))
            channels = made[-1].out_channels
        return nn.Sequential(*made)


class StridedConv(ConvModule):
    """A layer that pads as TensorFlow's ``SAME``: more at the right and at the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C', H / stride, W / stride), rounded up."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        return super().forward(padded(x, kernel, stride))


class MaxPool(nn.Module):
    """The maximum of 3x3 pixels.

    Args:
        stride: from one maximum to the next.
        same: whether it pads, as TensorFlow does.
    """

    def __init__(self, stride: int, *, same: bool) -> None:
        super().__init__()
        self.stride, self.same = stride, same

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, H / stride, W / stride), rounded up if padded."""
        if self.same:
            x = padded(x, 3, self.stride, -math.inf)
        return F.max_pool2d(x, 3, self.stride)


def trunk_channels(layers: Layers) -> int:
    """Returns the channels between the halves, 1088 in the paper's network."""
    return sum(map(layers.scaled, (96, 64, 96, 64, 384, 384)))


def padded(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Returns (N, C, H', W') with the border of TensorFlow's ``SAME``.

    It is the smallest with which a kernel has a place for each ``stride`` pixels of (N, C, H, W),
    and if it is odd its larger part is at the right and at the bottom.
    """
    border: list[int] = []
    for side in (x.shape[3], x.shape[2]):
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        border += [total // 2, total - total // 2]
    return F.pad(x, border, value=value)


class Mixed(nn.Module):
    """Branches on the same map, their results one after the other in the channels.

    Args:
        in_channels: of the map, and of a branch that is no convolution.
        *branches: called ``branch0``, ``branch1``, ...
    """

    def __init__(self, in_channels: int, *branches: nn.Module) -> None:
        super().__init__()
        self.out_channels = 0
        self._names = [f"branch{index}" for index in range(len(branches))]
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)
            last = branch[-1] if isinstance(branch, nn.Sequential) else branch
            self.out_channels += last.out_channels if isinstance(last, ConvModule) else in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_channels, H', W') of (N, in_channels, H, W)."""
        return torch.cat([self.get_submodule(name)(x) for name in self._names], dim=1)


class Residual(Mixed):
    """The same, brought back to the channels of the map, scaled and added to it.

    Args:
        in_channels: of the map and the result.
        *branches: as of ``Mixed``.
        scale: of what is added (Szegedy et al., Sec. 3.3).
        relu: whether the sum is rectified.
    """

    def __init__(
        self, in_channels: int, *branches: nn.Module, scale: float, relu: bool = True
    ) -> None:
        super().__init__(in_channels, *branches)
        self.conv2d = nn.Conv2d(self.out_channels, in_channels, 1)
        self.out_channels, self.scale, self.relu = in_channels, scale, relu

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, in_channels, H, W) of the same shape."""
        total = torch.add(x, self.conv2d(super().forward(x)), alpha=self.scale)
        return total.relu_() if self.relu else total


def mixed_5b(layers: Layers, channels: int) -> Mixed:
    """Returns the first Inception block, to 320 channels."""
    return Mixed(
        channels,
        layers.one(channels, 96),
        layers.chain(channels, (48, 1), (64, 5)),
        layers.chain(channels, (64, 1), (96, 3), (96, 3)),
        nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), layers.one(channels, 64)
        ),
    )


def block35(layers: Layers, channels: int) -> Residual:
    """Returns a block of 3x3 convolutions for maps of 35 pixels."""
    return Residual(
        channels,
        layers.one(channels, 32),
        layers.chain(channels, (32, 1), (32, 3)),
        layers.chain(channels, (32, 1), (48, 3), (64, 3)),
        scale=0.17,
    )


def mixed_6a(layers: Layers, channels: int, stride: int) -> Mixed:
    """Returns the first reduction, from 320 to 1088 channels; ``stride=1`` reduces nothing."""
    return Mixed(
        channels,
        layers.one(channels, 384, 3, stride, same=layers.same),
        layers.chain(channels, (256, 1), (256, 3), (384, 3, stride)),
        MaxPool(stride, same=layers.same),
    )


def block17(layers: Layers, channels: int) -> Residual:
    """Returns a block of 1x7 and 7x1 convolutions for maps of 17 pixels."""
    return Residual(
        channels,
        layers.one(channels, 192),
        layers.chain(channels, (128, 1), (160, (1, 7)), (192, (7, 1))),
        scale=0.10,
    )


def mixed_7a(layers: Layers, channels: int) -> Mixed:
    """Returns the second reduction, from 1088 to 2080 channels."""
    return Mixed(
        channels,
        layers.chain(channels, (256, 1), (384, 3, 2)),
        layers.chain(channels, (256, 1), (288, 3, 2)),
        layers.chain(channels, (256, 1), (288, 3), (320, 3, 2)),
        MaxPool(2, same=layers.same),
    )


def block8(layers: Layers, channels: int, *, scale: float = 0.20, relu: bool = True) -> Residual:
    """Returns a block of 1x3 and 3x1 convolutions for maps of 8 pixels."""
    return Residual(
        channels,
        layers.one(channels, 192),
        layers.chain(channels, (192, 1), (224, (1, 3)), (256, (3, 1))),
        scale=scale,
        relu=relu,
    )
