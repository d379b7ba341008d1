"""An RPN on maps of a stride that dilation has kept (Huang et al., arXiv 1611.10012)."""

from typing import Any

from mmdet.models.dense_heads import RPNHead as MMDetRPNHead
from torch import nn

from fldet.registry import MODELS


@MODELS.register_module()
class RPNHead(MMDetRPNHead):
    """MMDetection's RPN whose 3x3 convolution has a dilation.

    Args:
        in_channels: of the maps.
        dilation: of the 3x3 convolutions; 2 sees at stride 8 what 1 sees at stride 16.
        **kwargs: see MMDetection's ``RPNHead``.

    Raises:
        ValueError: ``dilation`` is below 1.
    """

    def __init__(self, in_channels: int, *, dilation: int = 1, **kwargs: Any) -> None:
        if dilation < 1:
            raise ValueError(f"dilation must be at least 1, got {dilation}")
        super().__init__(in_channels, **kwargs)
        for layer in self.rpn_conv.modules():
            if isinstance(layer, nn.Conv2d):
                layer.dilation = layer.padding = (dilation, dilation)
