"""MMDetection's detectors with our parts in the place of theirs: the same losses and gradients."""

import copy
import random
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

CONFIGS = Path(mmdet.__path__[0], ".mim", "configs")
SIDE = 128
STEM = 8  # channels of the backbone, 64 in the configs

ALL = ("anchors", "assigner", "loss")
DETECTORS = {
    "retinanet/retinanet_r50_fpn_1x_coco": ALL,
    "nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco": ALL,
    "libra_rcnn/libra-retinanet_r50_fpn_1x_coco": ALL,
    "free_anchor/freeanchor_r50_fpn_1x_coco": ("anchors", "assigner"),
    "sabl/sabl-retinanet_r50_fpn_1x_coco": ("loss",),
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco": ("loss",),
    "atss/atss_r50_fpn_1x_coco": ("anchors", "loss"),
    "foveabox/fovea_r50_fpn_4xb4-1x_coco": ("loss",),
    "yolof/yolof_r50-c5_8xb8-1x_coco": ("loss",),
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco": ("loss",),
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco": ("loss",),
    "dab_detr/dab-detr_r50_8xb2-50e_coco": ("loss",),
    "rpn/rpn_r50_fpn_1x_coco": ("anchors", "assigner"),
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco": ("anchors", "assigner"),
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco": ("anchors", "assigner"),
    "libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco": ("anchors", "assigner"),
    "double_heads/dh-faster-rcnn_r50_fpn_1x_coco": ("anchors", "assigner"),
    "dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco": ("anchors", "assigner"),
    "pafpn/faster-rcnn_r50_pafpn_1x_coco": ("anchors", "assigner"),
    # Their heads ask the loss for one value an entry, or for another reduction in each call.
    "fsaf/fsaf_r50_fpn_1x_coco": ("loss",),
    "pisa/retinanet-r50_fpn_pisa_1x_coco": ("loss",),
    "gfl/gfl_r50_fpn_1x_coco": ("anchors", "quality"),
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco with a focal loss": ("loss",),
    "ghm/retinanet_r50_fpn_ghm-1x_coco": ("ghm",),
}


def rows():
    for name, parts in DETECTORS.items():
        yield pytest.param(name, parts, id=name.rpartition("/")[2])


OURS = {
    "QualityFocalLoss": ("quality", "fldet.QualityFocalLoss"),
    "GHMC": ("ghm", "fldet.GHMLoss"),
}


def nodes(value):
    """Yields all dicts below a value."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list, tuple)):
            yield from nodes(item)


def small_model(name):
    """Returns the config of a model with a narrow backbone, without pretrained weights."""
    name, focal, _ = name.partition(" with a focal loss")
    model = Config.fromfile(CONFIGS / f"{name}.py").model
    if focal:
        model.roi_head.bbox_head.loss_cls = {"type": "FocalLoss", "use_sigmoid": True}
    model.backbone.base_channels = STEM
    for node in nodes(model):
        node.pop("init_cfg", None)
        for width in ("conv_out_channels", "fc_out_channels"):  # of the second stage
            if width in node:
                node[width] = 32
    neck = model.neck[0] if isinstance(model.neck, list) else model.neck
    given = neck.in_channels
    neck.in_channels = (
        [one * STEM // 64 for one in given] if isinstance(given, list) else given * STEM // 64
    )
    return model


def with_ours(model, parts):
    """Returns a copy with our parts, and the names of those that stand in it."""
    model, found = copy.deepcopy(model), set()
    for node in list(nodes(model)):
        kind = node.get("type")
        if "loss" in parts and kind == "FocalLoss":
            node.type = "fldet.FocalLoss"
            found.add("loss")
        elif kind in OURS and OURS[kind][0] in parts:
            found.add(OURS[kind][0])
            node.type = OURS[kind][1]
        elif "assigner" in parts and kind == "MaxIoUAssigner":
            node.type = "fldet.MaxIoUAssigner"
            found.add("assigner")
        elif "anchors" in parts and kind == "AnchorGenerator":
            first = node.get("octave_base_scale") or node.scales[0]
            ours = {
                "type": "fldet.AnchorGenerator",
                "sizes": [first * stride for stride in node.strides],
                "strides": list(node.strides),
                "num_scales": node.get("scales_per_octave", 1),
                "ratios": list(node.ratios),
            }
            node.clear()
            node.update(ours)
            found.add("anchors")
    return model, found


def samples():
    generator = torch.Generator().manual_seed(0)
    meta = dict.fromkeys(("img_shape", "ori_shape", "batch_input_shape", "pad_shape"), (SIDE, SIDE))
    for number in range(2):
        corner = torch.rand(3, 2, generator=generator) * SIDE / 2
        size = torch.rand(3, 2, generator=generator) * 50 + 12
        boxes = torch.cat([corner, (corner + size).clamp(max=SIDE)], 1)
        sample = DetDataSample(metainfo={**meta, "scale_factor": (1.0, 1.0), "img_id": number})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1, 0]))
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        yield sample


def losses_and_gradient(model):
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    found = {
        name: sum(value) if isinstance(value, list) else value
        for name, value in model.loss(images, list(samples())).items()
        if "loss" in name
    }
    sum(value.sum() for value in found.values()).backward()
    squares = [one.grad.square().sum() for one in model.parameters() if one.grad is not None]
    return found, torch.stack(squares).sum().sqrt()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MMDetection's heads warn of themselves
@pytest.mark.parametrize(("name", "parts"), [*rows()])
def test_our_parts_give_the_losses_of_theirs(name, parts):
    init_default_scope("mmdet")
    theirs_cfg = small_model(name)
    ours_cfg, found = with_ours(theirs_cfg, parts)
    assert found == set(parts)
    torch.manual_seed(0)
    theirs = MODELS.build(ConfigDict(theirs_cfg)).train()
    theirs.init_weights()  # some have parameters that are any memory before
    ours = MODELS.build(ConfigDict(ours_cfg)).train()
    loss = "bbox_head.loss_cls."  # what GHM has counted, which is nothing yet
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith(loss)}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(loss) for name in missing)
    expected, expected_gradient = losses_and_gradient(theirs)
    found, gradient = losses_and_gradient(ours)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # theirs has the shape (1,) where the divisor has
        torch.testing.assert_close(found[key].sum(), value.sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
