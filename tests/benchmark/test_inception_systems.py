"""The small G-RMI and TDM are stored, timed, counted and copied as other detectors are."""

import copy

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fldet.benchmark.clock import TWO_STAGES
from fldet.benchmark.predict import OptimizedCopy, benchmark
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.data.random_batches import random_batch
from fldet.devices import has_bfloat16
from fldet.engine.train import train
from fldet.inference.detector import Detector
from fldet.models.fast.fused import _RectifiedConvModule
from fldet.models.fast.optimize import optimized
from fldet.registry import MODELS

SHAPE = (97, 131)  # of no stride a multiple


@pytest.fixture(scope="module", params=["grmi_small", "tdm_small"])
def config(request, tiny_coco):
    """The small system with the tiny data set and few channels."""
    cfg = load_config(
        f"systems/shapes/{request.param}.py",
        {"data_root": str(tiny_coco), "model.test_cfg.rpn": {"nms_pre": 50, "max_per_img": 7}},
    )
    coco = load_config("_base_/datasets/coco_detection.py")
    for name in ("train_dataloader", "val_dataloader"):
        loader = {**coco[name], "num_workers": 0, "persistent_workers": False}
        loader["dataset"]["pipeline"] = cfg[name].dataset.pipeline
        cfg[name] = loader
    return cfg


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    init_default_scope("mmdet")
    built = MODELS.build(copy.deepcopy(config.model))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.rand(len(module.bias), generator=generator) / 5)
                module.running_var.copy_(torch.rand(len(module.bias), generator=generator) + 0.5)
        built.rpn_head.rpn_cls.weight.normal_(std=0.3, generator=generator)
        built.roi_head.bbox_head.fc_cls.weight.normal_(std=0.1, generator=generator)
    return built.eval()


def detections(model):
    with torch.no_grad():
        return model.test_step(random_batch(1, SHAPE, 6, boxes=0))[0].pred_instances


def test_an_optimized_copy_finds_the_same(model):
    expected, fast = detections(model), optimized(model)
    found = detections(fast)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert len(expected) > 10
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    assert found.labels.equal(expected.labels)
    if torch._C._has_mkldnn and isinstance(fast.backbone.conv2d_2a, _RectifiedConvModule):
        assert isinstance(fast.roi_head.shared_head.conv2d_7b, _RectifiedConvModule)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_in_bfloat16_crops_are_of_float32(model):
    fast, seen = optimized(model, precision="bf16"), []
    extractor, shared = fast.roi_head.bbox_roi_extractor, fast.roi_head.shared_head
    extractor.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    shared.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    found = detections(fast)
    assert seen == [torch.float32, torch.bfloat16]
    assert (found.bboxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    best = detections(model).scores[0]
    torch.testing.assert_close(found.scores[0], best, rtol=0, atol=0.05)


def test_stages_and_operations_are_counted(config):
    result = benchmark(
        config, num_images=2, shape=SHAPE, device="cpu", copy=OptimizedCopy(precision="fp32")
    )
    assert tuple(result.stages_ms) == TWO_STAGES[1:]
    counted = {
        stage: ms
        for stage, ms in result.stages_ms.items()
        if stage != "neck" or "neck" in config.model
    }
    assert all(ms > 0 for ms in counted.values())
    assert result.gflop * 1e9 == operations(config, regions=7)


def operations(config, regions):
    """Of the parts, each by itself, with the classes of the tiny data set."""
    init_default_scope("mmdet")
    with torch.device("meta"):
        model = MODELS.build(copy.deepcopy(prepare_config(config, phases=()).model)).eval()
    extractor = model.roi_head.bbox_roi_extractor
    crops = (regions, extractor.out_channels, extractor.crop_size, extractor.crop_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.rpn_head(model.extract_feat(torch.empty(1, 3, *SHAPE, device="meta")))
        model.roi_head.bbox_head(model.roi_head.shared_head(torch.empty(crops, device="meta")))
    return counter.get_total_flops()


@pytest.mark.parametrize("boxes", [0, 1])
def test_a_step_on_images_without_objects_and_with_one(config, boxes):
    torch.manual_seed(0)
    model = build_model(prepare_config(config, phases=())).train()
    batch = random_batch(2, SHAPE, 2, boxes=boxes)
    for sample in batch["data_samples"]:
        sample.set_metainfo({"batch_input_shape": SHAPE, "pad_shape": SHAPE})
    losses = model(**model.data_preprocessor(batch, True), mode="loss")
    values = [v for one in losses.values() for v in (one if isinstance(one, list) else [one])]
    assert all(torch.isfinite(value).all() for value in values)
    sum(value.sum() for name, value in flat(losses) if "loss" in name).backward()
    grad = model.roi_head.shared_head.conv2d_7b.conv.weight.grad
    assert torch.isfinite(grad).all()
    assert (losses["loss_bbox"] > 0) == bool(boxes)


def flat(losses):
    for name, value in losses.items():
        yield from ((name, one) for one in (value if isinstance(value, list) else [value]))


def test_a_checkpoint_alone_makes_a_detector(config, tmp_path):
    cfg = copy.deepcopy(config)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.train_dataloader.batch_size = 2
    run = train(cfg, work_dir=tmp_path / "run", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    (found,) = Detector.load(run.work_dir, device="cpu").predict([image], score_thr=0.0)
    assert len(found.scores) > 0
