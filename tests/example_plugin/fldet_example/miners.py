"""A miner that keeps a share of the negatives."""

import math

import torch
from torch import Tensor

from fldet.models.task_modules.miners import Divisor, Examples
from fldet_example.registry import TASK_UTILS


@TASK_UTILS.register_module()
class HardestShare:
    """All positives of an image, and a share of its negatives: those of highest loss.

    Args:
        share: in (0, 1]; rounded up to a whole number of negatives; 1 keeps every example.

    Raises:
        ValueError: the share is out of range.
    """

    divisor: Divisor = "positives"

    def __init__(self, share: float = 0.01) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self.share = share

    def mine(self, images: list[Examples]) -> list[Tensor]:
        """Returns for each image the indices of the examples to keep, positives first."""
        return [self._mine(image) for image in images]

    def _mine(self, image: Examples) -> Tensor:
        positives = image.is_positive.nonzero().squeeze(1)
        negatives = (~image.is_positive).nonzero().squeeze(1)
        wanted = math.ceil(self.share * len(negatives))
        hardest = image.cls_losses[negatives].topk(wanted).indices
        return torch.cat([positives, negatives[hardest]])
