"""Batches of noise, for steps of which only time or memory counts."""

from typing import Any

import torch
from torch import Tensor


def random_batch(
    size: int, shape: tuple[int, int], num_classes: int, *, boxes: int
) -> dict[str, Any]:
    """Returns a batch as a training loader gives it, the same in each call.

    Each image has the ``shape`` (height, width), and ``boxes`` whose small sides are as frequent as
    large ones.
    """
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    inputs: list[Tensor] = []
    samples = []
    for _ in range(size):
        inputs.append(torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator))
        limits = torch.tensor([shape[1], shape[0]])
        # From a thirtieth of the image on.
        sides = limits * torch.exp(torch.rand(boxes, 2, generator=generator) * 3.4 - 3.4)
        corners = torch.rand(boxes, 2, generator=generator) * (limits - sides)
        sample = DetDataSample(
            metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + sides], dim=1),
            labels=torch.randint(0, num_classes, (boxes,), generator=generator),
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}
