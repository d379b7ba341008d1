"""The checkpoints that MMDetection publishes fit our configs: same names, same shapes."""

import pytest
import torch
from mmengine.registry import init_default_scope

from fldet.config.load import load_config
from fldet.registry import MODELS, TASK_UTILS

PAIRS = [
    ("mmdet_r18_fpn_1x", "retinanet_r18_fpn_1x_coco"),
    ("mmdet_r50_fpn_1x", "retinanet_r50_fpn_1x_coco"),
    ("mmdet_r101_fpn_1x", "retinanet_r101_fpn_1x_coco"),
    ("mmdet_x101_32x4d_fpn_1x", "retinanet_x101-32x4d_fpn_1x_coco"),
    ("mmdet_x101_64x4d_fpn_1x", "retinanet_x101-64x4d_fpn_1x_coco"),
]


def built(cfg):
    init_default_scope("mmdet")
    with torch.device("meta"):  # shapes without memory
        return MODELS.build(cfg.model).eval()


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_state_and_what_decides_the_outputs_are_mmdets(ours, theirs):
    our_cfg = load_config(f"retinanet/{ours}.py")
    their_cfg = load_config(f"mmdet::retinanet/{theirs}.py")
    our_model, their_model = built(our_cfg), built(their_cfg)
    assert shapes(our_model) == shapes(their_model)
    our_neck, their_neck = our_model.neck, their_model.neck
    assert our_neck.relu_before_extra_convs == their_neck.relu_before_extra_convs
    assert our_neck.add_extra_convs == their_neck.add_extra_convs
    for key in ("mean", "std", "bgr_to_rgb", "pad_size_divisor"):
        assert our_cfg.model.data_preprocessor[key] == their_cfg.model.data_preprocessor[key]
    assert our_cfg.model.test_cfg == their_cfg.model.test_cfg
    assert our_cfg.model.backbone == their_cfg.model.backbone
    sizes = [(10, 16), (5, 8), (3, 4), (2, 2), (1, 1)]
    our_anchors, their_anchors = (
        TASK_UTILS.build(cfg.model.bbox_head.anchor_generator).grid_priors(sizes, device="cpu")
        for cfg in (our_cfg, their_cfg)
    )
    assert all(map(torch.equal, our_anchors, their_anchors))
