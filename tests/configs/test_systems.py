"""Each config below configs/systems loads, passes the checks, builds and takes a step on a photograph."""

from pathlib import Path

import pytest
import torch
from mmcv.transforms import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import fldet
from fldet.checkpoints.model import build_model
from fldet.config.check import validate
from fldet.config.load import load_config
from fldet.registry import MODELS

SYSTEMS = Path(fldet.__file__).parent.parent / "configs" / "systems"
FILES = sorted(SYSTEMS.rglob("*.py"))
each_system = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: str(path.relative_to(SYSTEMS))
)



def tiny_faster_rcnn_fpn(model):
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=3)


def tiny_faster_rcnn_c4(model):
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.rpn_head.update(in_channels=32, feat_channels=16)
    model.roi_head.shared_head.update(depth=18, base_channels=8, init_cfg=None)
    model.roi_head.bbox_roi_extractor.out_channels = 32
    model.roi_head.bbox_head.update(in_channels=64, num_classes=3)


# How a network of the paper's size becomes one that takes a step in a second: a function of the model's
# config for each file below configs/systems; the versions below shapes/ stay as they are.
MAKE_TINY = {
    "faster_rcnn_r101_c4": tiny_faster_rcnn_c4,
    "faster_rcnn_r101_c4_context": tiny_faster_rcnn_c4,
    "faster_rcnn_r101_c4_refine": tiny_faster_rcnn_c4,
    "faster_rcnn_r101_fpn": tiny_faster_rcnn_fpn,
    "faster_rcnn_r101_plus": tiny_faster_rcnn_c4,
    "mmdet_faster_rcnn_r101_fpn": tiny_faster_rcnn_fpn,
    "mmdet_faster_rcnn_r50_c4": tiny_faster_rcnn_c4,
}


@each_system
def test_loads_passes_the_checks_and_builds(path):
    cfg = load_config(path)
    validate(cfg)
    init_default_scope("mmdet")
    with torch.device("meta"):  # shapes without memory
        MODELS.build(cfg.model)


@each_system
def test_takes_a_step_on_a_photograph(path, real_image):
    cfg = load_config(path)
    if "shapes" not in path.parts:
        MAKE_TINY[path.stem](cfg.model)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    sample = Compose(cfg.train_dataloader.dataset.pipeline)(dict(real_image))
    before = {name: value.clone() for name, value in model.named_parameters()}
    losses = model.train_step(
        {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}, optimizer
    )
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss"] > 0
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moved
    assert moved <= trained
    assert all(torch.isfinite(value).all() for value in model.parameters())
