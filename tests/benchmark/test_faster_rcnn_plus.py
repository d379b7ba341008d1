"""Faster R-CNN+++ is timed, counted and copied as other detectors are."""

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from fldet.benchmark.clock import TWO_STAGES, time_stages
from fldet.benchmark.predict import benchmark
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.devices import has_bfloat16
from fldet.models.fast.optimize import optimized

SIDE = 160


@pytest.fixture(scope="module")
def config():
    """The small +++ on Shapes, narrow."""
    return load_config(
        "systems/shapes/faster_rcnn_r18_plus.py",
        {
            "model.backbone.base_channels": 4,
            "model.rpn_head": {"in_channels": 16, "feat_channels": 8},
            "model.roi_head.shared_head.base_channels": 4,
            "model.roi_head.bbox_roi_extractor.out_channels": 16,
            "model.roi_head.bbox_head.in_channels": 32,
            "model.test_cfg.rpn.max_per_img": 5,
        },
    )


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    built = build_model(prepare_config(config, phases=()))
    generator = torch.Generator().manual_seed(1)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.rand(len(module.bias), generator=generator) / 5)
            module.running_var.copy_(torch.rand(len(module.bias), generator=generator) + 0.5)
    with torch.no_grad():
        built.rpn_head.rpn_cls.weight.normal_(std=0.5, generator=generator)
        built.roi_head.bbox_head.fc_cls.weight.normal_(std=0.01, generator=generator)
    return built.eval()


def batch():
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    meta = {"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1.0, 1.0)}
    return {"inputs": [image], "data_samples": [DetDataSample(metainfo=meta)]}


def detections(model):
    with torch.no_grad():
        return model.test_step(batch())[0].pred_instances


def test_stages_and_operations_of_a_test_step(config):
    result = benchmark(config, num_images=2, shape=(SIDE, SIDE), device="cpu")
    assert tuple(result.stages_ms) == TWO_STAGES[1:]
    assert all(ms > 0 for name, ms in result.stages_ms.items() if name != "neck")
    maps = sum(of_maps(side) for side in (53, 107, 160, 213, 267))
    rpn = 2 * 10**2 * 8 * (9 * 16 + 12 + 48)
    # two rounds of 5 regions and the whole image, each at two scales; two layers of 64 inputs
    regions = 2 * 2 * (5 + 1) * of_stage(8, 16, 32)
    layers = 2 * 2 * 5 * 64 * (7 + 24)
    assert result.gflop * 1e9 == maps + rpn + regions + layers


def of_stage(side, width, out):
    """Operations of two blocks of two layers, the first of stride 2 where the width changes."""
    side = side if width == out else -(-side // 2)
    return 2 * side**2 * (9 * (width * out + 3 * out * out) + width * out * (width != out))


def of_maps(side):
    """Operations of the stem and of three stages; maps are rounded up at each stride."""
    half = -(-side // 2)
    total, side = 2 * 3 * 49 * 4 * half**2, -(-half // 2)
    for width, out in ((4, 4), (4, 8), (8, 16)):
        total += of_stage(side, width, out)
        side = side if width == out else -(-side // 2)
    return total


def test_timing_the_stages_leaves_the_detections_as_they_are(model):
    before = detections(model)
    assert set(time_stages(model, [batch()] * 2)) == set(TWO_STAGES)
    assert torch.equal(detections(model).bboxes, before.bboxes)


def test_an_optimized_copy_finds_the_same(model):
    expected, fast = detections(model), optimized(model)
    found = detections(fast)
    assert len(expected) > 5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_in_bfloat16_regions_of_all_rounds_and_scales_are_pooled_from_float32(model):
    fast, seen = optimized(model, precision="bf16"), []
    fast.roi_head.bbox_roi_extractor.register_forward_pre_hook(
        lambda _, inputs: seen.append((inputs[0][0].dtype, inputs[1].dtype))
    )
    found = detections(fast)
    assert len(seen) > 4
    assert set(seen) == {(torch.float32, torch.float32)}
    assert (found.bboxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    assert fast.roi_head.shared_head.layer4[0].conv1.weight.dtype == torch.bfloat16
    assert len(found) > 0
