"""An RPN for maps of a kept stride, and for images that hold none of its anchors."""

import copy
from typing import Any

from mmdet.models.dense_heads import RPNHead as MMDetRPNHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from torch import Tensor, nn

from fldet.registry import MODELS


@MODELS.register_module()
class RPNHead(MMDetRPNHead):
    """MMDetection's RPN whose 3x3 convolution may have a dilation, for images of any size.

    Huang et al. (arXiv 1611.10012) keep a stride by dilation. With ``allowed_border`` of at least 0
    in ``train_cfg``, anchors that leave the image do not learn (Ren et al., arXiv 1506.01497, Sec.
    3.3); an image in which no anchor lies inside learns from all of its valid anchors, where
    MMDetection ends the run.

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

    def _get_targets_single(
        self,
        flat_anchors: Any,
        valid_flags: Tensor,
        gt_instances: Any,
        img_meta: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Returns the targets of one image as MMDetection does; its (A, 4) anchors are flat."""
        chosen: Any = super()
        border, size = self.train_cfg["allowed_border"], img_meta["img_shape"][:2]
        if border >= 0 and not anchor_inside_flags(flat_anchors, valid_flags, size, border).any():
            without_border = copy.copy(self)
            without_border.train_cfg = {**self.train_cfg, "allowed_border": -1}
            chosen = super(RPNHead, without_border)
        return chosen._get_targets_single(
            flat_anchors, valid_flags, gt_instances, img_meta, *args, **kwargs
        )
