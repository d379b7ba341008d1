"""A detector of two stages is timed, counted and copied as one of one stage is."""

import copy

import pytest
import torch
from torch import nn

from fldet.analysis.flops.count import count_flops
from fldet.analysis.loss_cdf.logits import collect_logits
from fldet.benchmark.clock import TWO_STAGES, time_stages
from fldet.benchmark.predict import OptimizedCopy, benchmark
from fldet.benchmark.training import benchmark_training
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.devices import has_bfloat16
from fldet.engine.train import train
from fldet.errors import ConfigError, UsageError
from fldet.inference.export import export
from fldet.models.fast.cuda_graph import graphed
from fldet.models.fast.optimize import optimized

SIDE = 96


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_coco):
    """The small Faster R-CNN on Shapes, smaller, with the tiny data set."""
    cfg = load_config(
        "systems/shapes/faster_rcnn_r18_fpn.py",
        {
            "data_root": str(tiny_coco),
            "model.backbone.base_channels": 4,
            "model.neck": {"in_channels": [4, 8, 16, 32], "out_channels": 8},
            "model.rpn_head": {"in_channels": 8, "feat_channels": 8},
            "model.roi_head.bbox_roi_extractor.out_channels": 8,
            "model.roi_head.bbox_head": {"in_channels": 8, "fc_out_channels": 16},
            "model.test_cfg.rpn": {"nms_pre": 50, "max_per_img": 20},
        },
    )
    coco = load_config("_base_/datasets/coco_detection.py")
    for name in ("train_dataloader", "val_dataloader"):
        loader = {**coco[name], "num_workers": 0, "persistent_workers": False}
        loader["dataset"]["pipeline"] = cfg[name].dataset.pipeline
        cfg[name] = loader
    return cfg


@pytest.fixture(scope="module")
def trial(config, trial_of):
    return trial_of(config, SIDE, std_of_scores=0.1)


def test_stages_and_operations_of_a_test_step(config):
    result = benchmark(config, num_images=3, shape=(SIDE, SIDE), device="cpu")
    assert tuple(result.stages_ms) == TWO_STAGES[1:]
    assert all(ms > 0 for ms in result.stages_ms.values())
    assert result.gflop * 1e9 == operations(prepare_config(config, phases=()).model, rois=20)


def test_random_weights_have_as_many_regions_as_trained_ones(config):
    """Where all are alike, too, of which a suppression leaves 38."""
    alike, found = copy.deepcopy(config), []
    alike.model.rpn_head.init_cfg = {"type": "Constant", "layer": "Conv2d", "val": 0.0}
    alike.model.rpn_head.anchor_generator.update(num_scales=9, ratios=[1.0])
    for count in (150, 200):
        alike.model.test_cfg.rpn.max_per_img = count
        result = benchmark(alike, num_images=2, shape=(SIDE, SIDE), device="cpu")
        found.append(round(result.gflop * 1e9))
    model = prepare_config(config, phases=()).model
    assert found[1] - found[0] == operations(model, rois=200) - operations(model, rois=150)


def operations(model, rois):
    """Operations of the layers, worked out by hand: 2 for a multiply-add."""
    total = 2 * 3 * 49 * 4 * 48**2  # stem
    side, width = 24, 4
    for stage in range(4):
        out = 4 * 2**stage
        side = side if stage == 0 else side // 2
        total += 2 * 9 * side**2 * (width * out + 3 * out * out)  # two blocks of two layers
        total += 2 * side**2 * width * out * (stage > 0)  # the projection of the first
        total += 2 * side**2 * (out * 8 + 9 * 8 * 8)  # lateral and output of the pyramid
        width = out
    for side in (24, 12, 6, 3, 2):  # RPN: 3 anchors
        total += 2 * side**2 * 8 * (9 * 8 + 3 + 12)
    classes = model.roi_head.bbox_head.num_classes
    return total + 2 * rois * (8 * 49 * 16 + 16 * 16 + 16 * (classes + 1) + 16 * 4 * classes)


def test_timing_the_stages_leaves_the_model_as_it_is(trial):
    before = trial.detections()
    assert set(time_stages(trial.model, [trial.batch()] * 2)) == set(TWO_STAGES)
    assert "predict" not in vars(trial.model.rpn_head)
    assert torch.equal(trial.detections().bboxes, before.bboxes)


def test_an_optimized_copy_finds_the_same(trial):
    expected, fast = trial.detections(), optimized(trial.model)
    found = trial.detections(fast)
    assert len(expected) > 10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
    assert torch.equal(found.labels, expected.labels)
    with pytest.raises(RuntimeError, match="optimized copy"):
        fast.train()


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic here")
def test_in_bfloat16_rois_are_pooled_from_float32(trial):
    fast, seen = optimized(trial.model, precision="bf16"), []
    extractor = fast.roi_head.bbox_roi_extractor
    extractor.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0][0], inputs[1])))
    found = trial.detections(fast)
    ((maps, rois),) = seen
    assert (maps.dtype, rois.dtype) == (torch.float32, torch.float32)
    assert fast.roi_head.bbox_head.fc_cls.weight.dtype == torch.bfloat16
    assert (found.bboxes.dtype, found.scores.dtype) == (torch.float32, torch.float32)
    assert len(found) > 0


def test_a_copy_is_compared_and_the_model_itself_is_not(config):
    options = {"num_images": 3, "shape": (SIDE, SIDE), "device": "cpu", "against": "mmdet"}
    with pytest.raises(UsageError, match="nothing in this FasterRCNN is fldet's") as refused:
        benchmark(config, **options)
    assert "--precision fp32" in refused.value.hint
    result = benchmark(config, copy=OptimizedCopy(), **options)
    assert result.against.speedup > 0
    assert result.optimized


def test_a_training_step(config):
    result = benchmark_training(config, steps=1, shape=(SIDE, SIDE), device="cpu")
    assert result.stages_ms == {}
    assert result.gflop > 0
    with pytest.raises(UsageError, match="FasterRCNN, which has no bbox_head of one stage, has no"):
        benchmark_training(config, steps=1, shape=(SIDE, SIDE), device="cpu", against="mmdet")


@pytest.fixture(scope="module")
def work_dir(config, tmp_path_factory):
    cfg = copy.deepcopy(config)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.train_dataloader.batch_size = 1
    return train(cfg, work_dir=tmp_path_factory.mktemp("run") / "run", device="cpu").work_dir


def test_what_is_for_one_stage_says_so_with_the_name_of_the_model(config, work_dir, tmp_path):
    described = "FasterRCNN with RPNHead and StandardRoIHead"
    with pytest.raises(UsageError, match=f"cannot export a {described}"):
        export(work_dir, out=tmp_path / "x.onnx")
    with pytest.raises(UsageError, match=f"the model of the config is a {described}"):
        collect_logits(config, work_dir, tmp_path / "x.npz")
    with pytest.raises(ConfigError, match="model 'FasterRCNN' has no bbox_head with anchors"):
        count_flops(config, (SIDE, SIDE))


def test_a_network_of_two_stages_is_not_recorded(trial):
    with pytest.raises(UsageError, match="a FasterRCNN cannot be recorded"):
        graphed(trial.model, trial.batch())
