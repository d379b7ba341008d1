"""Faster R-CNN+++ is timed, counted and copied as other detectors are."""

import pytest
import torch
from torch import nn

from fldet.benchmark.clock import TWO_STAGES, time_stages
from fldet.benchmark.predict import benchmark
from fldet.config.load import load_config
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
def trial(config, trial_of):
    return trial_of(config, SIDE, std_of_scores=0.01)


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


def test_timing_the_stages_leaves_the_detections_as_they_are(trial):
    before = trial.detections()
    assert set(time_stages(trial.model, [trial.batch()] * 2)) == set(TWO_STAGES)
    assert torch.equal(trial.detections().bboxes, before.bboxes)


def test_an_optimized_copy_finds_the_same(trial):
    expected, fast = trial.detections(), optimized(trial.model)
    found = trial.detections(fast)
    assert len(expected) > 5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_in_bfloat16_regions_of_all_rounds_and_scales_are_pooled_from_float32(trial):
    fast, seen = optimized(trial.model, precision="bf16"), []
    fast.roi_head.bbox_roi_extractor.register_forward_pre_hook(
        lambda _, inputs: seen.append((inputs[0][0].dtype, inputs[1].dtype))
    )
    found = trial.detections(fast)
    assert len(seen) > 4
    assert set(seen) == {(torch.float32, torch.float32)}
    assert (found.bboxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    assert fast.roi_head.shared_head.layer4[0].conv1.weight.dtype == torch.bfloat16
    assert len(found) > 0
