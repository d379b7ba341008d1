"""A small detector whose tests time, count and copy it."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from fldet.checkpoints.model import build_model
from fldet.config.prepare import prepare_config


@dataclass
class Trial:
    """A detector of two stages in evaluation mode, and one square image for it."""

    model: Any
    side: int

    def batch(self):
        generator = torch.Generator().manual_seed(2)
        size = (self.side, self.side)
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        meta = {"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)}
        return {"inputs": [image], "data_samples": [DetDataSample(metainfo=meta)]}

    def detections(self, model=None):
        """What the model finds, or a copy of it."""
        with torch.no_grad():
            return (model or self.model).test_step(self.batch())[0].pred_instances


@pytest.fixture(scope="session")
def trial_of():
    """Builds a detector with norms that do something, and scores that differ."""

    def build(config, side, *, std_of_scores):
        torch.manual_seed(0)
        built = build_model(prepare_config(config, phases=()))
        generator = torch.Generator().manual_seed(1)
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.rand(len(module.bias), generator=generator) / 5)
                module.running_var.copy_(torch.rand(len(module.bias), generator=generator) + 0.5)
        with torch.no_grad():
            built.rpn_head.rpn_cls.weight.normal_(std=0.5, generator=generator)
            scores = built.roi_head.bbox_head.fc_cls.weight
            scores.normal_(std=std_of_scores, generator=generator)
        return Trial(built.eval(), side)

    return build
