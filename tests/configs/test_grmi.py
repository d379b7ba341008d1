"""Faster R-CNN by G-RMI: its size, its settings, and its RPN beside MMDetection's."""

import copy

import pytest
import torch
from mmdet.models.dense_heads import RPNHead as MMDetRPNHead
from mmengine.registry import init_default_scope
from torch.utils.flop_counter import FlopCounterMode

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.models.dense_heads.rpn_head import RPNHead
from fldet.registry import MODELS, TASK_UTILS

OURS = "systems/grmi_inception_resnet_v2.py"


def built(model, device="meta"):
    init_default_scope("mmdet")
    with torch.device(device):
        return MODELS.build(copy.deepcopy(model)).eval()


@pytest.mark.parametrize(("stride", "of_maps", "of_rpn"), [(8, 531.3, 96.8), (16, 180.4, 24.5)])
def test_parameters_and_operations(stride, of_maps, of_rpn):
    """At 600 x 1024. The second half of the network is the cost: 1254 GFLOP for 300 regions."""
    model = built(load_config(OURS, {"model.backbone.stride": stride}).model)
    assert sum(one.numel() for one in model.parameters()) == 59_967_597
    found = []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (coarse,) = model.extract_feat(torch.empty(1, 3, 600, 1024, device="meta"))
        found.append(counter.get_total_flops())
        model.rpn_head((coarse,))
        found.append(counter.get_total_flops() - found[0])
        crops = torch.empty(1, 1088, 17, 17, device="meta")
        model.roi_head.bbox_head(model.roi_head.shared_head(crops))
    assert coarse.shape == (1, 1088, -(-600 // stride), 1024 // stride)
    assert [round(one / 1e9, 1) for one in found] == [of_maps, of_rpn]
    assert round((counter.get_total_flops() - sum(found)) / 1e9, 2) == 4.18


def test_the_settings_of_the_paper():
    cfg = load_config(OURS)
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline):
        assert [one.scale for one in pipeline if one.type == "Resize"] == [(1024, 600)]
    train, test = cfg.model.train_cfg, cfg.model.test_cfg
    assert (train.rpn.sampler.num, train.rcnn.sampler.num) == (256, 64)
    assert (train.rcnn.sampler.pos_fraction, test.rpn.max_per_img) == (0.25, 300)
    assert (test.rcnn.score_thr, test.rcnn.nms.iou_threshold, test.rcnn.max_per_img) == (0, 0.6, 100)
    images = [cfg.auto_scale_lr.base_batch_size * one for one in cfg.param_scheduler[1].milestones]
    assert images == [900_000, 1_200_000]
    assert cfg.optim_wrapper.optimizer.lr / cfg.auto_scale_lr.base_batch_size == 1e-3
    assert cfg.optim_wrapper.clip_grad.max_norm == 10


def test_anchors_have_their_centres_at_multiples_of_the_stride():
    generator = TASK_UTILS.build(load_config(OURS).model.rpn_head.anchor_generator)
    (anchors,) = generator.grid_priors([(75, 128)], device="cpu")
    assert anchors.shape == (75 * 128 * 12, 4)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    torch.testing.assert_close(centres, 8 * (centres / 8).round(), rtol=0, atol=1e-3)
    assert len(centres.round().unique(dim=0)) == 75 * 128
    sides = (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt().round().unique()
    assert sides.tolist() == [64, 128, 256, 512]


def test_both_halves_begin_with_one_classifiers_file(tmp_path):
    """Names are a classifier's, so each half takes its own part of the file."""
    cfg = load_config(OURS, {"model.backbone.width": 0.0625, "model.backbone.repeats": (1, 1)})
    cfg.model.rpn_head.update(in_channels=68, feat_channels=4)
    cfg.model.roi_head.bbox_roi_extractor.out_channels = 68
    cfg.model.roi_head.shared_head.update(repeats=1, width=0.0625)
    cfg.model.roi_head.bbox_head.in_channels = 96
    parts = cfg.model.backbone, cfg.model.roi_head.shared_head
    for part in parts:
        part.init_cfg = None
    file, generator = tmp_path / "classifier.pth", torch.Generator().manual_seed(0)
    weights = {"classif.weight": torch.randn(1000, 96), "classif.bias": torch.randn(1000)}
    for half in (MODELS.build(copy.deepcopy(part)) for part in parts):
        for name, value in half.state_dict().items():
            weights[name] = torch.rand(value.shape, generator=generator).to(value.dtype)
    torch.save(weights, file)
    for part in parts:
        part.init_cfg = {"type": "Pretrained", "checkpoint": str(file)}
    model = build_model(cfg)
    found = {**model.backbone.state_dict(), **model.roi_head.shared_head.state_dict()}
    assert set(found) == set(weights) - {"classif.weight", "classif.bias"}
    assert all(torch.equal(value, weights[name]) for name, value in found.items())
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".bn." in name)


# --- an RPN with dilation ---


def heads(dilation, **options):
    options = {
        "in_channels": 4,
        "feat_channels": 6,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [8],
            "ratios": [1.0],
            "strides": [8],
        },
        **options,
    }
    init_default_scope("mmdet")
    ours, theirs = RPNHead(dilation=dilation, **options), MMDetRPNHead(**options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("options", [{}, {"num_convs": 2}])
def test_dilation_2_on_every_second_pixel_is_mmdetections_rpn(options):
    ours, theirs = heads(2, **options)
    x = torch.randn(2, 4, 9, 7)
    for mine, other in zip(ours((x,)), theirs((x[..., ::2, ::2],)), strict=True):
        torch.testing.assert_close(mine[0][..., ::2, ::2], other[0], rtol=1e-5, atol=1e-6)
        assert mine[0].shape[2:] == x.shape[2:]


def test_dilation_1_is_mmdetections_rpn():
    ours, theirs = heads(1)
    x = torch.randn(1, 4, 6, 5)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(ours((x,)), theirs((x,)), strict=True))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        heads(0)
