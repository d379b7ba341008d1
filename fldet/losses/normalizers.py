"""What the summed loss is divided by: four ways of counting, of which codebases chose one each.

A normalizer gets the number of examples of each image of its process (anchors assigned to a box,
or examples that a miner kept) and returns the divisor, a scalar > 0. DistributedDataParallel
averages the gradients of the processes, so a divisor is per process.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class CountOverRanks(nn.Module):
    """The number over the images of all processes, at least 1 (Sec. 4.1; DEVIATION D7).

    N processes with one image each then take the same step as one process with N images.
    """

    def forward(self, counts: Tensor) -> Tensor:
        """Returns the mean number of a process.

        Args:
            counts: (N,) number of examples of each image of this process.
        """
        count = counts.sum().float()
        if not (dist.is_available() and dist.is_initialized()):
            return count.clamp(min=1)
        processes = dist.get_world_size()
        count /= processes
        dist.all_reduce(count)
        return count.clamp(min=1 / processes)


class CountPerRank(nn.Module):
    """The number over the images of this process, at least 1, as in MMDetection.

    Processes with few objects weigh as much as those with many, so the step depends on how the
    images are spread.
    """

    def forward(self, counts: Tensor) -> Tensor:
        """Returns the number of this process; see ``CountOverRanks``."""
        return counts.sum().float().clamp(min=1)


class CountPlusOne(nn.Module):
    """The sum of (number + 1) over the images of this process, as in Detectron, the paper's code.

    The one keeps an image without objects from a division by zero, and shrinks the loss of an
    image with few objects.
    """

    def forward(self, counts: Tensor) -> Tensor:
        """Returns the number of this process plus that of its images; see ``CountOverRanks``."""
        return (counts + 1).sum().float()


class MovingAverageCount(nn.Module):
    """A moving average of ``CountPerRank`` over the training steps, as in Detectron2.

    The average is saved in checkpoints. Of several processes each counts its own images, from the
    average of the first one (``fldet.BuffersHook``).

    Args:
        momentum: share of the old average, in [0, 1).
        initial: the average before the first step, > 0.

    Raises:
        ValueError: an argument is out of range.
    """

    average: Tensor

    def __init__(self, momentum: float = 0.9, initial: float = 100.0) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if not initial > 0:
            raise ValueError(f"initial must be > 0, got {initial}")
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(float(initial)))

    def forward(self, counts: Tensor) -> Tensor:
        """Returns the average, this step's number counted in if the module is in training mode."""
        if self.training:
            count = counts.sum().float().clamp(min=1)
            self.average = self.momentum * self.average + (1 - self.momentum) * count
        return self.average
