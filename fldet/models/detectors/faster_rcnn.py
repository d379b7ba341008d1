"""Faster R-CNN with the image at several scales for its second stage (arXiv 1512.03385, App. B)."""

from typing import Any

import torch.nn.functional as F
from mmdet.models.detectors import FasterRCNN as MMDetFasterRCNN
from torch import Tensor

from fldet.registry import MODELS


@MODELS.register_module()
class FasterRCNN(MMDetFasterRCNN):
    """MMDetection's Faster R-CNN, for a ``fldet.RoIHead`` with ``test_scales`` too.

    The proposals are those of the image as it comes. Training and everything else is MMDetection's.
    """

    def predict(self, batch_inputs: Tensor, batch_data_samples: Any, rescale: bool = True) -> Any:
        """Returns the samples with their ``pred_instances``.

        Args:
            batch_inputs: (N, 3, H, W), normalised and padded.
            batch_data_samples: of N images.
            rescale: whether boxes are in pixels of the files, not of the inputs.
        """
        if not getattr(self.roi_head, "test_scales", None):
            return super().predict(batch_inputs, batch_data_samples, rescale=rescale)
        maps = self.extract_feat(batch_inputs)
        proposals = self.rpn_head.predict(maps, batch_data_samples, rescale=False)
        found = self.roi_head.predict(
            self._pyramid(batch_inputs, maps), proposals, batch_data_samples, rescale=rescale
        )
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _pyramid(self, inputs: Tensor, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns the map of the inputs at each scale of the RoI head."""
        # DEVIATION D37: the inputs are resized, not the files.
        return tuple(
            maps[0] if factor == 1 else self.extract_feat(resized(inputs, factor))[0]
            for factor in self.roi_head.scale_factors
        )


def resized(images: Tensor, factor: float) -> Tensor:
    """Returns (N, C, H, W) images with sides multiplied by ``factor`` and rounded down."""
    return F.interpolate(images, scale_factor=factor, mode="bilinear", recompute_scale_factor=False)
