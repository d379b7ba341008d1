"""Convolutions that add and rectify while their result is still in the cache, by oneDNN on x86."""

import platform
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.layers import ResLayer
from torch import Tensor, nn

from fldet.models.backbones.ssd_resnet import SSDResNet


def fuse_rectifiers(network: nn.Module) -> int:
    """Joins ReLUs, and the sums of residual blocks, to the convolutions before them, in place.

    That is done where mmcv's ``ConvModule`` or MMDetection's ResNet say what follows what. Every
    other ordinary convolution calls the same operator without a ReLU: with one thread and one
    image, torch computes 1x1 convolutions without oneDNN. The sum of a residual block overwrites
    the block's input where nothing else can read it. The network is in evaluation mode, its batch
    norms are folded, and it has no gradients from now on.

    Returns:
        How many ReLUs were joined; 0, and nothing is changed, on another device or processor.
    """
    if not _has_operator(network):
        return 0
    for module in network.modules():
        if type(module) is nn.Conv2d and _pads_with_zeros(module):
            module.__class__ = _Convolution
    return sum(map(_fuse, list(network.modules())))


def _fuse(module: Any) -> int:
    """Joins the ReLUs that a module of a known class itself calls; returns how many."""
    if type(module) is ConvModule and _is_plain(module):
        module.__class__ = _RectifiedConvModule
        module.slope = getattr(module.activate, "negative_slope", 0.0)
        return 1
    if type(module) in (ResNet, SSDResNet) and _has_plain_stem(module):
        module.conv1, module.relu = _Rectified(module.conv1), nn.Identity()
        return 1
    count = 0
    for index, block in enumerate(module if type(module) is ResLayer else ()):
        if type(block) in _FUSED and _layers_fit(block):
            block.__class__ = _FUSED[type(block)]
            block.keeps_input = index == 0
            count += len(_convolutions(block))
    return count


def _has_operator(network: nn.Module) -> bool:
    return (
        all(value.device.type == "cpu" for value in network.parameters())
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


class _Convolution(nn.Conv2d):
    """A convolution, with a ReLU, leaky or not, or a sum and a ReLU if its caller says so."""

    def forward(self, x: Tensor, relu: bool = False, slope: float = 0.0) -> Tensor:
        rectifier, scalars = ("leaky_relu", [slope]) if slope else ("relu", [])
        return torch.ops.mkldnn._convolution_pointwise(
            x, *self._arguments(), *((rectifier, scalars) if relu else ("none", [])), ""
        )

    def add_to(self, other: Tensor, x: Tensor) -> Tensor:
        """Returns ``other``, overwritten by ``relu(other + convolution(x))``."""
        return torch.ops.mkldnn._convolution_pointwise_(
            other, x, *self._arguments(), "add", 1.0, "relu", [], ""
        )

    def _arguments(self) -> tuple[Any, ...]:
        return self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups


class _Rectified(nn.Module):
    def __init__(self, conv: _Convolution) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, relu=True)


class _RectifiedConvModule(ConvModule):
    slope: float

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:  # noqa: ARG002
        return self.conv(x, relu=activate, slope=self.slope)


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
            x = conv(x, relu=True)
        return last.add_to(total, x)


class _FusedBasicBlock(_FusedBlock, BasicBlock):
    pass


class _FusedBottleneck(_FusedBlock, Bottleneck):
    pass


_FUSED: dict[type, type] = {BasicBlock: _FusedBasicBlock, Bottleneck: _FusedBottleneck}


def _has_plain_stem(resnet: Any) -> bool:
    return not resnet.deep_stem and _is_fused(resnet.conv1, resnet.norm1, resnet.relu)


def _pads_with_zeros(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _convolutions(block: Any) -> list[Any]:
    names = ("conv1", "conv2", "conv3") if isinstance(block, Bottleneck) else ("conv1", "conv2")
    return [getattr(block, name) for name in names]


def _layers_fit(block: Any) -> bool:
    """Returns whether a block is convolutions, folded norms and ReLUs."""
    if getattr(block, "with_plugins", False):
        return False
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
        and _is_fused(module.conv, norm, module.activate, (nn.ReLU, nn.LeakyReLU))
    )


def _is_fused(
    conv: nn.Module, norm: nn.Module, relu: nn.Module, relus: tuple[type, ...] = (nn.ReLU,)
) -> bool:
    kinds = type(conv), type(norm)
    hooks = conv._forward_hooks or norm._forward_hooks or relu._forward_hooks
    return kinds == (_Convolution, nn.Identity) and type(relu) in relus and not hooks
