"""Convolutions that add and rectify while their result is still in the cache, by oneDNN on x86."""

import platform
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.layers import ResLayer
from torch import Tensor, nn

from fldet.models.backbones.efficientnet_lite import Block, EfficientNetLite, HalvingConv2d
from fldet.models.backbones.ssd_resnet import SSDResNet

# A rectifier as the operator is told of it, and numbers for it.
Rectifier = tuple[str, Sequence[float]]
NONE: Rectifier = ("none", ())
RELU: Rectifier = ("relu", ())


def fuse_rectifiers(network: nn.Module) -> int:
    """Joins ReLUs, and the sums of residual blocks, to the convolutions before them, in place.

    That is done where mmcv's ``ConvModule``, MMDetection's ResNet or our EfficientNet-Lite say what
    follows what. Every other ordinary convolution calls the same operator without a ReLU: with one
    thread and one image, torch computes 1x1 convolutions without oneDNN. The sum of a residual
    block overwrites the block's input where nothing else can read it. The network is in evaluation
    mode, its batch norms are folded, and it has no gradients from now on.

    Returns:
        How many ReLUs were joined; 0, and nothing is changed, on another device or processor.
    """
    if not _has_operator(network):
        return 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _pads_with_zeros(module):
            module.__class__ = _CONVOLUTIONS.get(type(module), type(module))
    return sum(map(_fuse, list(network.modules())))


def _fuse(module: Any) -> int:
    """Joins the ReLUs that a module of a known class itself calls; returns how many."""
    if type(module) is ConvModule and _is_plain(module):
        module.__class__ = _RectifiedConvModule
        module.rectifier = _rectifier_of(module.activate)
        return 1
    if type(module) in (ResNet, SSDResNet) and _has_plain_stem(module):
        module.conv1, module.relu = _Rectified(module.conv1, module.relu), nn.Identity()
        return 1
    if type(module) is EfficientNetLite:
        return _fuse_lite(module)
    count = 0
    for index, block in enumerate(module if type(module) is ResLayer else ()):
        if type(block) in _FUSED and _layers_fit(block):
            block.__class__ = _FUSED[type(block)]
            block.keeps_input = index == 0
            count += len(_convolutions(block))
    return count


def _fuse_lite(network: Any) -> int:
    count = 0
    if _is_fused(network._conv_stem, network._bn0, network.relu):
        network._conv_stem = _Rectified(network._conv_stem, network.relu)
        network.relu = nn.Identity()
        count += 1
    for block in network._blocks:
        pairs = list(_layers(block))
        if type(block) in _FUSED and all(_is_fused(*pair, block.relu) for pair in pairs):
            block.__class__ = _FUSED[type(block)]
            count += len(pairs) - 1
    return count


def _has_operator(network: nn.Module) -> bool:
    return (
        all(value.device.type == "cpu" for value in network.parameters())
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


class _Convolution(nn.Conv2d):
    """A convolution, with a ReLU, or a sum and perhaps a ReLU, if its caller says so."""

    def forward(self, x: Tensor, rectifier: Rectifier = NONE) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, *self._arguments(x), *rectifier, "")

    def add_to(self, other: Tensor, x: Tensor, rectifier: Rectifier | None) -> Tensor:
        """Returns ``other``, overwritten by the rectified ``other + convolution(x)``."""
        return torch.ops.mkldnn._convolution_pointwise_(
            other, x, *self._arguments(x), "add", 1.0, *(rectifier or (None, ())), ""
        )

    def _arguments(self, x: Tensor) -> tuple[Any, ...]:  # noqa: ARG002
        return self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups


class _HalvingConvolution(_Convolution, HalvingConv2d):
    def _arguments(self, x: Tensor) -> tuple[Any, ...]:
        _, *rest = super()._arguments(x)
        return self.weight_for(x, self.weight), *rest


_CONVOLUTIONS: dict[type, type] = {nn.Conv2d: _Convolution, HalvingConv2d: _HalvingConvolution}


class _Rectified(nn.Module):
    def __init__(self, conv: _Convolution, relu: nn.Module) -> None:
        super().__init__()
        self.conv, self.rectifier = conv, _rectifier_of(relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.rectifier)


class _RectifiedConvModule(ConvModule):
    rectifier: Rectifier

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:  # noqa: ARG002
        return self.conv(x, self.rectifier if activate else NONE)


def _rectifier_of(relu: nn.Module) -> Rectifier:
    if isinstance(relu, nn.ReLU6):
        return "hardtanh", (0.0, 6.0)
    if isinstance(relu, nn.LeakyReLU) and relu.negative_slope:
        return "leaky_relu", (relu.negative_slope,)
    return RELU


class _FusedBlock(nn.Module):
    """The forward pass of MMDetection's residual blocks, their norms folded."""

    # Somebody else may read the input: the first block of a stage without a projection gets what an
    # earlier stage has handed out.
    keeps_input: bool

    def forward(self, x: Tensor) -> Tensor:
        *before, last = _convolutions(self)
        if isinstance(self.downsample, nn.Module):
            total = self.downsample(x)
        else:
            total = x.clone() if self.keeps_input else x
        for conv in before:
            x = conv(x, RELU)
        return last.add_to(total, x, RELU)


class _FusedBasicBlock(_FusedBlock, BasicBlock):
    pass


class _FusedBottleneck(_FusedBlock, Bottleneck):
    pass


class _FusedLiteBlock(Block):
    # Its input may be overwritten: what a stage hands out goes on to a block of stride 2.
    def forward(self, x: Tensor) -> Tensor:
        *before, last = [conv for conv, _ in _layers(self)]
        y = x
        for conv in before:
            y = conv(y, _rectifier_of(self.relu))
        if not self.adds:
            return last(y)
        return last.add_to(x, y, None)


_FUSED: dict[type, type] = {
    BasicBlock: _FusedBasicBlock,
    Bottleneck: _FusedBottleneck,
    Block: _FusedLiteBlock,
}


def _has_plain_stem(resnet: Any) -> bool:
    return not resnet.deep_stem and _is_fused(resnet.conv1, resnet.norm1, resnet.relu)


def _pads_with_zeros(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _convolutions(block: Any) -> list[Any]:
    names = ("conv1", "conv2", "conv3") if isinstance(block, Bottleneck) else ("conv1", "conv2")
    return [getattr(block, name) for name in names]


def _layers(block: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each convolution of a block of EfficientNet-Lite with its norm."""
    if block.expands:
        yield block._expand_conv, block._bn0
    yield block._depthwise_conv, block._bn1
    yield block._project_conv, block._bn2


def _layers_fit(block: Any) -> bool:
    """Returns whether a block is convolutions, folded norms and ReLUs."""
    if getattr(block, "with_plugins", False) or type(block.relu) is not nn.ReLU:
        return False  # after a sum the operator has no other
    norms = [block.norm1, block.norm2, *([block.norm3] if isinstance(block, Bottleneck) else [])]
    return all(
        _is_fused(conv, norm, block.relu)
        for conv, norm in zip(_convolutions(block), norms, strict=True)
    )


def _is_plain(module: Any) -> bool:
    """Returns whether it is a convolution and a ReLU, leaky or not, its norm folded or missing."""
    norm = module.norm if module.with_norm else nn.Identity()
    return (
        module.order == ("conv", "norm", "act")
        and module.with_activation
        and not module.with_explicit_padding
        and _is_fused(module.conv, norm, module.activate)
    )


def _is_fused(conv: nn.Module, norm: nn.Module, relu: nn.Module) -> bool:
    """Returns whether the operator can take the place of all three."""
    hooks = conv._forward_hooks or norm._forward_hooks or relu._forward_hooks
    return (
        isinstance(conv, _Convolution)
        and type(norm) is nn.Identity
        and type(relu) in (nn.ReLU, nn.ReLU6, nn.LeakyReLU)
        and not hooks
    )
