"""The last stage of a ResNet, computed for each region (He et al., arXiv 1512.03385)."""

from typing import Any

from mmdet.models.backbones import ResNet
from mmdet.models.layers import ResLayer as Stage
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fldet.registry import MODELS


@MODELS.register_module()
class ResLayer(BaseModule):
    """One stage of a ResNet as the shared head of a detector, of any width.

    With 64 base channels it is MMDetection's ``ResLayer``, which knows no others; weights have the
    same names, ``layer4.*`` for the last stage, so that a classifier's weights load.

    Args:
        depth: of the ResNet: 18, 34, 50, 101 or 152.
        stage: index of the stage from 0; 3 is conv5_x.
        stride: of the first block.
        base_channels: width of the first stage, as in the backbone.
        style: ``caffe`` has the stride in the first convolution of a bottleneck, ``pytorch`` in the
            3x3.
        norm_cfg: config of the norms; batch norm whose scale and shift are trained if None.
        norm_eval: whether batch norms keep their statistics in training.
        init_cfg: how the weights start; He's initialization if None.

    Raises:
        ValueError: there is no ResNet of that depth, or no such stage.
    """

    def __init__(
        self,
        depth: int,
        *,
        stage: int = 3,
        stride: int = 2,
        base_channels: int = 64,
        style: str = "pytorch",
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or _HE)
        if depth not in ResNet.arch_settings:
            known = ", ".join(map(str, ResNet.arch_settings))
            raise ValueError(f"expected a depth of {known}, got {depth}")
        block, blocks = ResNet.arch_settings[depth]
        if not 1 <= stage < len(blocks):
            raise ValueError(f"expected a stage from 1 to {len(blocks) - 1}, got {stage}")
        self.norm_eval = norm_eval
        self._name = f"layer{stage + 1}"
        self.add_module(
            self._name,
            Stage(
                block,
                base_channels * 2 ** (stage - 1) * block.expansion,
                base_channels * 2**stage,
                blocks[stage],
                stride=stride,
                style=style,
                norm_cfg=norm_cfg or {"type": "BN", "requires_grad": True},
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns (R, C', H', W') of pooled regions (R, C, H, W); H' is H / stride, rounded up."""
        return self.get_submodule(self._name)(x)

    def train(self, mode: bool = True) -> "ResLayer":
        """Sets the mode of all layers but batch norms with fixed statistics."""
        super().train(mode)
        for module in self.modules():
            if self.norm_eval and isinstance(module, _BatchNorm):
                module.eval()
        return self


_HE = [
    {"type": "Kaiming", "layer": "Conv2d"},
    {"type": "Constant", "val": 1, "layer": ["_BatchNorm", "GroupNorm"]},
]
