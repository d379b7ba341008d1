"""Faster R-CNN on conv4_x: its size, its settings, and the boxes and losses of MMDetection's config."""

import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.utils.flop_counter import FlopCounterMode

from fldet.config.load import load_config
from fldet.registry import MODELS, TASK_UTILS

OURS = "systems/faster_rcnn_r101_c4.py"
PUBLISHED = "systems/mmdet_faster_rcnn_r50_c4.py"
THEIRS = "mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py"


def built(model, device="meta"):
    init_default_scope("mmdet")
    with torch.device(device):
        return MODELS.build(copy.deepcopy(model)).eval()


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


# --- the paper's size ---


def test_parameters_and_operations():
    scales = {"model.rpn_head.anchor_generator.scales": [2, 4, 8, 16, 32]}
    model = built(load_config(OURS, scales).model)
    assert sum(one.numel() for one in model.parameters()) == 52_836_892
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = model.extract_feat(torch.empty(1, 3, 600, 1000, device="meta"))
        of_maps = counter.get_total_flops()
        model.rpn_head(maps)
        of_rpn = counter.get_total_flops() - of_maps
        model.roi_head.bbox_head(
            model.roi_head.shared_head(torch.empty(1, 1024, 14, 14, device="meta"))
        )
    of_roi = counter.get_total_flops() - of_maps - of_rpn
    assert maps[0].shape == (1, 1024, 38, 63)
    assert [round(one / 1e9, 3) for one in (of_maps, of_rpn, of_roi)] == [166.103, 45.553, 1.466]


def test_twelve_anchors_have_the_sizes_of_the_paper():
    model = load_config(OURS).model
    anchors = TASK_UTILS.build(model.rpn_head.anchor_generator).base_anchors[0]
    widths, heights = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    expected = [64.0, 128.0, 256.0, 512.0] * 3
    torch.testing.assert_close((widths * heights).sqrt(), torch.tensor(expected))
    torch.testing.assert_close(heights / widths, torch.tensor([0.5, 1, 2]).repeat_interleave(4))
    # and all of 12 fewer channels than with 15 anchors: 3 scores and 12 deltas
    fewer = sum(one.numel() for one in built(model).parameters())
    assert fewer == 52_836_892 - (3 + 12) * (1024 + 1)


def test_the_settings_of_the_paper():
    cfg = load_config(OURS)
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler[1].milestones) == (320_000, [240_000])
    assert (cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr.base_batch_size) == (0.001, 16)
    assert [step.scale for step in cfg.train_pipeline if "scale" in step] == [(1000, 600)]
    train, test = cfg.model.train_cfg, cfg.model.test_cfg
    assert (train.rcnn.sampler.num, train.rcnn.sampler.pos_fraction) == (64, 0.25)
    assert (train.rpn.sampler.num, train.rpn.sampler.pos_fraction) == (256, 0.5)
    assert (train.rpn_proposal.max_per_img, test.rpn.max_per_img) == (2000, 300)
    assert (test.rpn.nms.iou_threshold, test.rcnn.nms.iou_threshold) == (0.7, 0.3)
    assert not any("bn" in name and one.requires_grad for name, one in params(cfg.model))


def params(model):
    return built(model).named_parameters()


# --- MMDetection's published checkpoint ---


def test_names_and_shapes_of_all_weights():
    found, expected = (shapes(built(load_config(name).model)) for name in (PUBLISHED, THEIRS))
    assert found == expected
    assert "roi_head.shared_head.layer4.2.conv3.weight" in found


def test_what_decides_the_outputs_is_mmdetections():
    ours, theirs = (load_config(name).model for name in (PUBLISHED, THEIRS))
    assert ours.test_cfg == theirs.test_cfg
    assert ours.data_preprocessor == theirs.data_preprocessor
    assert ours.backbone == theirs.backbone
    assert {**ours.rpn_head, "type": "RPNHead"} == theirs.rpn_head  # with a mend for thin images
    assert ours.roi_head.bbox_roi_extractor == theirs.roi_head.bbox_roi_extractor
    assert ours.roi_head.bbox_head == theirs.roi_head.bbox_head


def narrow(model):
    """As narrow as MMDetection's shared head can be: 64 channels, blocks of two layers."""
    model = copy.deepcopy(model)
    model.backbone.update(depth=18, init_cfg=None)
    model.rpn_head.update(in_channels=256, feat_channels=8)
    model.roi_head.shared_head.update(depth=18, init_cfg=None)
    model.roi_head.bbox_roi_extractor.out_channels = 256
    model.roi_head.bbox_head.update(in_channels=512, num_classes=3)
    model.train_cfg.rcnn.sampler.num = 8
    model.test_cfg.rpn.max_per_img = 20
    return model


@pytest.fixture(scope="module")
def pair():
    """The published network in our config and in MMDetection's, narrow, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = (built(narrow(load_config(name).model), "cpu") for name in (PUBLISHED, THEIRS))
    with torch.no_grad():
        for layer in ("rpn_head.rpn_cls", "roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"):
            ours.get_submodule(layer).weight.normal_(std=0.05)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def test_both_halves_start_with_the_weights_of_one_classifier(tmp_path):
    torch.manual_seed(1)
    classifier = MODELS.build({"type": "ResNet", "depth": 18, "base_channels": 8})
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "resnet.pth")
    cfg = narrow(load_config(OURS).model)
    start = {"type": "Pretrained", "checkpoint": str(tmp_path / "resnet.pth")}
    for part in (cfg.backbone, cfg.roi_head.shared_head):
        part.update(base_channels=8, init_cfg=start)
    cfg.rpn_head.in_channels = cfg.roi_head.bbox_roi_extractor.out_channels = 32
    cfg.roi_head.bbox_head.in_channels = 64
    model = built(cfg, "cpu")
    model.init_weights()
    found = {**model.backbone.state_dict(), **model.roi_head.shared_head.state_dict()}
    expected = classifier.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def batch(boxes=0):
    generator = torch.Generator().manual_seed(3)
    images, samples = [], []
    for height, width in ((97, 131), (90, 75)):  # no multiples of 32
        size = (3, height, width)
        images.append(torch.randint(0, 256, size, dtype=torch.uint8, generator=generator))
        meta = {"img_shape": (height, width), "ori_shape": (2 * height, 2 * width)}
        sample = DetDataSample(metainfo={**meta, "scale_factor": (0.5, 0.5), "img_id": 0})
        corner = torch.rand(boxes, 2, generator=generator) * 30
        side = 10 + 30 * torch.rand(boxes, 2, generator=generator)
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side], 1), labels=torch.arange(boxes) % 3
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


def test_equal_weights_give_equal_boxes(pair):
    with torch.no_grad():
        found, expected = ([one.pred_instances for one in net.test_step(batch())] for net in pair)
    assert min(map(len, expected)) > 5
    for mine, other in zip(found, expected, strict=True):
        for name in ("bboxes", "scores", "labels"):
            assert torch.equal(mine[name], other[name])


@pytest.mark.parametrize("boxes", [0, 1, 3])
def test_equal_weights_give_equal_losses(pair, boxes):
    losses = []
    for model in pair:
        torch.manual_seed(5)  # the samplers draw
        data = model.data_preprocessor(batch(boxes), True)
        with torch.no_grad():
            losses.append(model.parse_losses(model(**data, mode="loss"))[1])
    assert losses[0] == losses[1]
    assert all(torch.isfinite(value) for value in losses[0].values())


# --- the steps to +++ ---


def test_each_step_of_the_ablation_adds_one_thing():
    names = ("c4", "c4_refine", "c4_context", "plus")
    heads = [load_config(f"systems/faster_rcnn_r101_{name}.py").model.roi_head for name in names]
    added = [
        {key: new[key] for key in new if new[key] != old.get(key)}
        for old, new in zip(heads, heads[1:], strict=False)
    ]
    assert added == [
        {"type": "fldet.RoIHead", "refine": 1, "vote_iou": 0.5},
        {"context": True},
        {"test_scales": [200, 400, 600, 800, 1000], "input_scale": 600},
    ]


def test_only_the_context_has_weights():
    counts = []
    for name in ("c4", "c4_refine", "c4_context", "plus"):
        model = built(load_config(f"systems/faster_rcnn_r101_{name}.py").model)
        counts.append(sum(one.numel() for one in model.parameters()))
    context = 2048 * (81 + 320)
    assert counts == [52_821_517, 52_821_517, 52_821_517 + context, 52_821_517 + context]
