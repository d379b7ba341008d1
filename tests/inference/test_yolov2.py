"""YOLOv2 as any other model: optimized, exported, timed; and what it has no answer to."""

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fldet.analysis.loss_cdf.logits import _check_head
from fldet.anchors.boxes import anchor_scheme
from fldet.benchmark.predict import benchmark
from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.data.random_batches import random_batch
from fldet.errors import ConfigError, UsageError
from fldet.inference.detector import Detector
from fldet.inference.export import export
from fldet.inference.parity import match
from fldet.models.fast.fused import fuse_rectifiers
from fldet.models.fast.optimize import fold_batch_norms, optimized

NAMES = ("disc", "box", "triangle", "star", "ring", "cross")


def tiny_config():
    cfg = load_config("systems/yolov2_darknet19.py")
    cfg.model.backbone.base_channels = 4
    cfg.model.neck.update(in_channels=(64, 128), out_channels=16, passthrough_channels=8)
    cfg.model.bbox_head.update(num_classes=len(NAMES), in_channels=16)
    cfg.val_dataloader.dataset.pipeline[1].scale = (96, 96)
    return cfg


@pytest.fixture(scope="module")
def model():
    """Random weights, with norms that change something and scores that differ."""
    torch.manual_seed(0)
    built = build_model(tiny_config())
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(built.bbox_head.conv.weight, std=0.3)
    return built.eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    """A file as a run leaves it: the config that it carries is checked before it is used."""
    path = tmp_path_factory.mktemp("yolov2") / "iter_1.pth"
    meta = {"cfg": tiny_config().pretty_text, "dataset_meta": {"classes": NAMES}, "iter": 1}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*s, 3), dtype=np.uint8) for s in ((64, 96), (96, 50), (31, 96))]


@pytest.fixture(scope="module")
def image_folder(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_an_optimized_copy_finds_the_same(model):
    batch = random_batch(1, (64, 96), 1, boxes=0)
    fast = optimized(model)
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        one, other = (m.test_step(copy.deepcopy(batch))[0].pred_instances for m in (model, fast))
    assert len(one) == len(other) > 40
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.bboxes, other.bboxes, rtol=0, atol=1e-2)
    assert one.labels.equal(other.labels)


def test_leaky_rectifiers_join_their_convolutions(model):
    parts = nn.ModuleList([copy.deepcopy(model.backbone), copy.deepcopy(model.neck)])
    assert fold_batch_norms(parts) == 22
    plain = copy.deepcopy(parts)
    count = fuse_rectifiers(parts.requires_grad_(False))
    assert count in (22, 0)  # 0: no x86 processor
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        one, other = (neck(backbone(x))[0] for backbone, neck in (plain, parts))
    assert (one < 0).any()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_predicts_by_the_config_that_it_carries(checkpoint, model, images):
    detector = Detector.load(checkpoint, device="cpu")
    assert detector.classes == NAMES
    found = detector.predict(images)
    assert all(len(one) > 10 for one in found)
    for one, image in zip(found, images, strict=True):
        assert one.boxes.min() >= 0
        assert (one.boxes.max(axis=0) <= [*image.shape[1::-1]] * 2).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "where"), [("onnx", "inside"), ("onnx", "outside"), ("torchscript", "outside")]
)
def test_exported_models_find_what_the_checkpoint_finds(
    checkpoint, images, image_folder, tmp_path, format, where
):
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install -r requirements/export.txt")
        pytest.importorskip("onnxscript", reason="pip install -r requirements/export.txt")
    out = tmp_path / f"model.{format}"
    result = export(checkpoint, format=format, out=out, post_process=where, check=str(image_folder))
    assert result.within_tolerance
    assert (result.parity.unmatched, result.parity.images) == (0, 3)
    assert result.parity.boxes > 30
    theirs = Detector.load(out, device="cpu", trust=True).predict(images, 0.1, 1)
    ours = Detector.load(checkpoint, device="cpu").predict(images, 0.1, 1)
    for one, other in zip(ours, theirs, strict=True):
        box, score, unmatched = match(one, other, 0.1)
        assert (box < 1e-3, score < 1e-4, unmatched) == (True, True, 0)


def test_the_benchmark_knows_its_stages_and_operations():
    result = benchmark(tiny_config(), num_images=2, shape=(64, 96), device="cpu")
    assert {"backbone", "neck", "head", "post-process"} <= set(result.stages_ms)
    assert result.gflop > 0


def test_what_is_for_anchors_with_sigmoids_is_refused(model):
    with pytest.raises(UsageError, match="a SingleStageDetector with YOLOv2Head") as refused:
        _check_head(model)
    assert "anchors, sigmoid scores" in refused.value.expected
    with pytest.raises(ConfigError, match=r"has no bbox_head\.anchor_generator"):
        anchor_scheme(tiny_config())
