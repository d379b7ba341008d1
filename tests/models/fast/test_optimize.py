"""Optimized copies find what the original finds, and refuse what would go wrong."""

import copy
import pickle

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from torch import nn

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.devices import has_bfloat16
from fldet.errors import UnavailableError, UsageError
from fldet.models.fast.optimize import (
    as_in_mmdetection,
    fold_batch_norms,
    network_precision,
    optimized,
    require_precision,
)
from fldet.registry import MODELS

CPU = torch.device("cpu")
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(CPU), reason="no bfloat16 arithmetic here")


def image(height=96, width=128):
    generator = torch.Generator().manual_seed(0)
    meta = {"img_shape": (height, width), "ori_shape": (48, 64), "scale_factor": (2.0, 2.0)}
    return {
        "inputs": [
            torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        ],
        "data_samples": [DetDataSample(metainfo=meta)],
    }


def shake(model):
    """Gives every batch norm statistics of its own, and scores a spread."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in (
                (module.weight, 0.5),
                (module.bias, -0.1),
                (module.running_mean, -0.1),
                (module.running_var, 0.5),
            ):
                noise = torch.rand(values.shape, generator=generator) * (0.2 if low < 0 else 1)
                values.data.copy_(noise + low)
    model.eval()  # a backbone returns None here
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory, write_tiny_config):
    cfg = load_config(write_tiny_config(tmp_path_factory.mktemp("optimize")))
    torch.manual_seed(0)
    built = shake(build_model(cfg))
    with torch.no_grad():
        built.bbox_head.retina_cls.weight.normal_(std=0.3)
    return built


def detections(model):
    with torch.no_grad():
        return model.test_step(image())[0].pred_instances


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def test_float32_gives_the_detections_of_mmdetections_code(model):
    stock, found = detections(as_in_mmdetection(model)), detections(optimized(model))
    assert len(stock) == 100
    torch.testing.assert_close(found.scores, stock.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, stock.bboxes, rtol=0, atol=1e-2)
    assert torch.equal(found.labels, stock.labels)


def test_the_model_as_it_is_gives_them_bit_by_bit(model):
    stock, found = detections(as_in_mmdetection(model)), detections(model)
    for name in ("bboxes", "scores", "labels"):
        assert torch.equal(found[name], stock[name])


def test_all_batch_norms_of_backbone_and_neck_are_folded_and_group_norms_stay(model):
    fast = optimized(model)
    assert len(norms(model)) > 20
    assert norms(fast) == []
    assert sum(isinstance(m, nn.GroupNorm) for m in fast.modules()) == sum(
        isinstance(m, nn.GroupNorm) for m in model.modules()
    )


def test_the_original_is_not_changed(model):
    before = copy.deepcopy(model.state_dict())
    expected = detections(model)
    optimized(model)
    as_in_mmdetection(model)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(detections(model).scores, expected.scores)
    assert model.bbox_head.test_cfg.get("post_process", "lean") == "lean"
    assert model.train().training
    model.eval()


def test_maps_are_channels_last(model):
    fast = optimized(model)
    maps = []
    fast.bbox_head.register_forward_hook(lambda _m, _i, outputs: maps.extend(outputs[0]))
    detections(fast)
    assert maps[0].is_contiguous(memory_format=torch.channels_last)
    assert not maps[0].is_contiguous()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda m: m.train(),
        lambda m: m.state_dict(),
        lambda m: m.train_step({}, None),
        lambda m: torch.save(m.state_dict(), "nowhere.pth"),
    ],
)
def test_a_copy_refuses_to_be_trained_or_saved(model, misuse):
    with pytest.raises(RuntimeError, match="of an optimized copy: its batch norms are folded"):
        misuse(optimized(model))


def test_a_copy_has_no_gradients_and_cannot_be_pickled(model):
    fast = optimized(model)
    assert not any(p.requires_grad for p in fast.parameters())
    assert not fast.eval().training
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(fast)


@needs_bfloat16
def test_bfloat16_keeps_the_large_scores(model):
    stock, fast = detections(as_in_mmdetection(model)), optimized(model, precision="bf16")
    found = detections(fast)
    assert network_precision(fast) == "bfloat16"
    assert found.scores.dtype == found.bboxes.dtype == torch.float32
    torch.testing.assert_close(found.scores[:20], stock.scores[:20], rtol=0, atol=0.05)
    fraction = found.bboxes - found.bboxes.bfloat16().float()
    assert fraction.abs().max() > 0  # the boxes themselves were not rounded


@needs_bfloat16
def test_bfloat16_before_mmdetections_post_processing_is_widened(model):
    fast = optimized(as_in_mmdetection(model), precision="bf16")
    again = optimized(model, precision="bf16")
    found, expected = detections(fast), detections(again)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.bboxes, expected.bboxes)


def test_a_processor_without_bfloat16_is_told_so(monkeypatch):
    monkeypatch.setattr("fldet.models.fast.optimize.has_bfloat16", lambda device: False)
    with pytest.raises(UnavailableError, match="cpu has no arithmetic for bfloat16"):
        require_precision("bf16", CPU)
    require_precision("fp32", CPU)


def test_a_torch_that_cannot_tell_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_bfloat16(CPU) is True
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert has_bfloat16(CPU) is False


def test_another_precision_and_another_kind_of_model_are_refused(model):
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        optimized(model, precision="fp8")
    with pytest.raises(UsageError, match="a Linear cannot be optimized"):
        optimized(nn.Linear(1, 1))


BACKBONES = {
    "ResNet-50": dict(type="ResNet", depth=50, norm_eval=True),
    "deep stem, average pooling": dict(type="ResNetV1d", depth=50),
    "groups": dict(type="ResNeXt", depth=50, groups=32, base_width=4),
    "ConvModule": dict(type="MobileNetV2", out_indices=(1, 2, 4, 7)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_folding_keeps_what_a_backbone_computes(name):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    backbone = shake(MODELS.build(BACKBONES[name]))
    folded = copy.deepcopy(backbone)
    assert fold_batch_norms(folded) == len(norms(backbone)) > 40
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for expected, found in zip(backbone(x), folded(x), strict=True):
            torch.testing.assert_close(found / expected.std(), expected / expected.std())


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), "not right after"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)), "before"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)), "a group norm"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
            "statistics of the batch",
        ),
    ],
)
def test_other_norms_are_left_alone(module, reason):
    assert fold_batch_norms(module.eval()) == 0, reason


def test_a_conv_module_that_normalizes_first_is_left_alone():
    from mmcv.cnn import ConvModule

    module = ConvModule(4, 4, 1, norm_cfg={"type": "BN"}, order=("norm", "act", "conv"))
    assert fold_batch_norms(module.eval()) == 0


def test_a_convolution_with_two_norms_is_folded_for_each():
    shared = nn.Conv2d(3, 4, 1)
    module = nn.ModuleList(nn.Sequential(shared, nn.BatchNorm2d(4)) for _ in range(2))
    shake(module)
    x = torch.randn(1, 3, 5, 5)
    with torch.no_grad():
        expected = [branch(x) for branch in module]
        assert fold_batch_norms(module) == 2
        for branch, value in zip(module, expected, strict=True):
            torch.testing.assert_close(branch(x), value)
