"""Optimized copies of a small SSD and DSSD find what the original finds."""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from fldet.config.load import load_config
from fldet.data.random_batches import random_batch
from fldet.devices import has_bfloat16
from fldet.models.fast.fused import _Rectified
from fldet.models.fast.optimize import optimized
from fldet.registry import MODELS


@pytest.fixture(params=["ssd_r18", "dssd_r18"])
def model(request):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    built = MODELS.build(load_config(f"systems/shapes/{request.param}.py").model)
    built.train()
    with torch.no_grad():
        for _ in range(5):  # statistics of the norms
            built.bbox_head(built.extract_feat(torch.randn(2, 3, 160, 160)))
    for tower in built.bbox_head.cls_convs:
        nn.init.normal_(tower[-1].weight, std=0.05)
    built.eval()
    return built


def detections(model):
    with torch.no_grad():
        return model.test_step(random_batch(1, (160, 160), 6, boxes=0))[0].pred_instances


def test_folded_and_fused(model):
    expected, fast = detections(model), optimized(model)
    found = detections(fast)
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert isinstance(fast.backbone.conv1, _Rectified) or not torch._C._has_mkldnn
    assert len(expected) == 200
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    assert found.labels.equal(expected.labels)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_in_bfloat16_scores_and_boxes_are_float32(model):
    found = detections(optimized(model, precision="bf16"))
    assert (found.scores.dtype, found.bboxes.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(found.scores, detections(model).scores, rtol=0, atol=0.1)
