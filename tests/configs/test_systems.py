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


def narrow_ssd512(model):
    model.backbone = {
        "type": "ResNet",
        "depth": 18,
        "base_channels": 8,
        "strides": (1, 2, 2, 1),
        "out_indices": (1, 3),
    }
    channels = (16, 64, 32, 16, 16, 16, 16)
    model.neck.update(in_channels=channels[:2], out_channels=channels)
    model.bbox_head.update(in_channels=channels)


def narrow_ssd513(model):
    model.backbone.update(depth=18, base_channels=8, style="pytorch", init_cfg=None)
    model.neck.update(in_channels=(16, 64), extra_channels=16, widths=(4,) * 7)
    model.bbox_head.update(in_channels=(16,) * 7)
    if "decoder_channels" in model.neck:
        model.neck.decoder_channels = 8
        model.bbox_head.feat_channels = 8


def narrow_yolov2(model):
    model.backbone.update(base_channels=4)
    model.neck.update(in_channels=(64, 128), out_channels=16, passthrough_channels=8)
    model.bbox_head.update(num_classes=3, in_channels=16)


def tiny_faster_rcnn_c4(model):
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.rpn_head.update(in_channels=32, feat_channels=16)
    model.roi_head.shared_head.update(depth=18, base_channels=8, init_cfg=None)
    model.roi_head.bbox_roi_extractor.out_channels = 32
    model.roi_head.bbox_head.update(in_channels=64, num_classes=3)


def tiny_grmi(model):
    model.backbone.update(repeats=(1, 1), width=0.125, init_cfg=None)
    model.rpn_head.update(in_channels=136, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 136
    model.roi_head.shared_head.update(repeats=0, width=0.125, init_cfg=None)
    model.roi_head.bbox_head.update(in_channels=192, num_classes=3)


def tiny_tdm(model):
    tiny_grmi(model)
    model.neck.update(in_channels=(40, 136), lateral_channels=(4,), top_down_channels=(4,))
    model.neck.out_channels = (8,)
    model.rpn_head.in_channels = 8
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.shared_head.in_channels = 8


# How a network of the paper's size becomes one that takes a step in a second: a function of the model's
# config for each file below configs/systems; the versions below shapes/ stay as they are.
MAKE_TINY = {
    "faster_rcnn_r101_c4": tiny_faster_rcnn_c4,
    "faster_rcnn_r101_c4_context": tiny_faster_rcnn_c4,
    "faster_rcnn_r101_c4_refine": tiny_faster_rcnn_c4,
    "grmi_inception_resnet_v2": tiny_grmi,
    "grmi_inception_resnet_v2_stride16": tiny_grmi,
    "tdm_inception_resnet_v2": tiny_tdm,
    "faster_rcnn_r101_fpn": tiny_faster_rcnn_fpn,
    "faster_rcnn_r101_plus": tiny_faster_rcnn_c4,
    "mmdet_faster_rcnn_r101_fpn": tiny_faster_rcnn_fpn,
    "mmdet_ssd512": narrow_ssd512,
    "ssd513_r101": narrow_ssd513,
    "dssd513_r101": narrow_ssd513,
    "mmdet_faster_rcnn_r50_c4": tiny_faster_rcnn_c4,
    "yolov2_darknet19": narrow_yolov2,
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
    pair = {"inputs": [sample["inputs"]] * 2, "data_samples": [sample["data_samples"]] * 2}
    losses = model.train_step(pair, optimizer)  # a batch norm on one cell needs two images
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss"] > 0
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moved
    assert moved <= trained
    assert all(torch.isfinite(value).all() for value in model.parameters())
