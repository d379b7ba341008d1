"""Faster R-CNN with FPN: its size, and the same boxes as MMDetection's config."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.utils.flop_counter import FlopCounterMode

from fldet.config.load import load_config
from fldet.registry import MODELS, TASK_UTILS

OURS = "systems/faster_rcnn_r101_fpn.py"
PUBLISHED = "systems/mmdet_faster_rcnn_r101_fpn.py"
THEIRS = "mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py"
SIDE = 160


def built(model, device="meta"):
    init_default_scope("mmdet")
    with torch.device(device):
        return MODELS.build(copy.deepcopy(model)).eval()


def narrow(model):
    """A small network with the settings of a big one."""
    model = copy.deepcopy(model)
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=32, num_classes=3)
    return model


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


# --- the paper's size ---


def test_parameters_and_operations():
    model = built(load_config(OURS).model)
    assert sum(one.numel() for one in model.parameters()) == 60_745_184
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = model.extract_feat(torch.empty(1, 3, 800, 1344, device="meta"))
        of_maps = counter.get_total_flops()
        model.rpn_head(maps)
        of_rpn = counter.get_total_flops() - of_maps
        model.roi_head.bbox_head(torch.empty(1000, 256, 7, 7, device="meta"))
    of_rois = counter.get_total_flops() - of_maps - of_rpn
    assert [round(one / 1e9, 1) for one in (of_maps, of_rpn, of_rois)] == [456.1, 106.3, 28.6]
    assert counter.get_total_flops() / 1e9 == pytest.approx(590.96, abs=0.005)


def test_the_settings_of_the_paper():
    cfg = load_config(OURS)
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler[1].milestones) == (160_000, [120_000])
    assert cfg.optim_wrapper.optimizer == {
        "type": "SGD",
        "lr": 0.02,
        "momentum": 0.9,
        "weight_decay": 1e-4,
    }
    assert cfg.auto_scale_lr.base_batch_size == 16
    settings = cfg.model.train_cfg
    assert (settings.rpn_proposal.max_per_img, cfg.model.test_cfg.rpn.max_per_img) == (2000, 1000)
    assert (settings.rcnn.sampler.num, settings.rcnn.sampler.pos_fraction) == (512, 0.25)
    assert (settings.rpn.sampler.num, settings.rpn.sampler.pos_fraction) == (256, 0.5)
    assert settings.rpn.allowed_border == -1  # anchors outside the image learn
    betas = load_config(OURS, ["model.rpn_head.loss_bbox.beta=1.0"]).model.rpn_head.loss_bbox
    assert betas.beta == 1.0


# --- MMDetection's published checkpoints ---


def test_names_and_shapes_of_all_weights():
    assert shapes(built(load_config(PUBLISHED).model)) == shapes(built(load_config(THEIRS).model))


def test_what_decides_the_outputs_is_mmdetections():
    ours, theirs = (load_config(name).model for name in (PUBLISHED, THEIRS))
    assert ours.test_cfg == theirs.test_cfg
    for key in ("mean", "std", "bgr_to_rgb", "pad_size_divisor"):
        assert ours.data_preprocessor[key] == theirs.data_preprocessor[key]
    assert ours.backbone == theirs.backbone
    sizes = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3)]
    found, expected = (
        TASK_UTILS.build(model.rpn_head.anchor_generator).grid_priors(sizes, device="cpu")
        for model in (ours, theirs)
    )
    assert all(map(torch.equal, found, expected))


def batch(boxes=0):
    generator = torch.Generator().manual_seed(3)
    images, samples = [], []
    for height, width in ((SIDE, 131), (97, SIDE)):  # no multiples of 32
        images.append(
            torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        )
        meta = {"img_shape": (height, width), "ori_shape": (2 * height, 2 * width)}
        sample = DetDataSample(metainfo={**meta, "scale_factor": (0.5, 0.5), "img_id": 0})
        corner = torch.rand(boxes, 2, generator=generator) * 60
        side = 10 + 50 * torch.rand(boxes, 2, generator=generator)
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side], 1), labels=torch.arange(boxes) % 3
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


@pytest.fixture(scope="module")
def pair():
    """The published network in our config and in MMDetection's, narrow, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = (built(narrow(load_config(name).model), "cpu") for name in (PUBLISHED, THEIRS))
    with torch.no_grad():
        ours.rpn_head.rpn_cls.weight.normal_(std=0.3)
        ours.roi_head.bbox_head.fc_cls.weight.normal_(std=0.3)
        ours.roi_head.bbox_head.fc_reg.weight.normal_(std=0.3)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def test_equal_weights_give_equal_boxes(pair):
    found, expected = ([one.pred_instances for one in model.test_step(batch())] for model in pair)
    assert sum(map(len, expected)) > 50
    for mine, other in zip(found, expected, strict=True):
        for name in ("bboxes", "scores", "labels"):
            assert torch.equal(mine[name], other[name])


@pytest.mark.parametrize("boxes", [0, 1, 4])
def test_equal_weights_give_equal_losses(pair, boxes):
    """Our assigner leaves alone a box that meets no anchor; here each meets some."""
    found = []
    for model in pair:
        torch.manual_seed(5)  # the samplers draw
        data = model.data_preprocessor(batch(boxes), True)
        found.append(model(**data, mode="loss"))
    for name, losses in found[0].items():
        for mine, other in zip(listed(losses), listed(found[1][name]), strict=True):
            assert torch.equal(mine, other), name
            assert torch.isfinite(mine).all(), name


def listed(value):
    return value if isinstance(value, list) else [value]


# --- levels and samples ---


def test_levels_of_rois_are_those_of_the_formula():
    """Eq. 1 of the FPN paper: floor(4 + log2(sqrt(w h) / 224)), from P2 to P5."""
    extractor = built(narrow(load_config(OURS).model), "cpu").roi_head.bbox_roi_extractor
    sides = np.array([1, 55, 56, 111, 112, 223, 224, 447, 448, 900, 3000], dtype=np.float64)
    widths, heights = sides * 2, sides / 2  # the same area in another ratio
    rois = np.stack([np.zeros_like(sides), 0 * sides, 0 * sides, widths, heights], 1)
    expected = np.clip(np.floor(4 + np.log2(np.sqrt(widths * heights) / 224)), 2, 5) - 2
    levels = extractor.map_roi_levels(torch.tensor(rois, dtype=torch.float32), 4)
    assert levels.tolist() == expected.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


def sampler_of(stage):
    settings = load_config(OURS).model.train_cfg[stage]
    return TASK_UTILS.build(settings.assigner), TASK_UTILS.build(settings.sampler)


@pytest.mark.parametrize(
    ("stage", "objects", "background", "chosen"),
    [
        ("rcnn", 400, 1600, (128, 384)),  # a quarter of 512
        ("rcnn", 20, 1980, (20, 492)),  # too few objects: more background
        ("rcnn", 0, 2000, (0, 512)),
        ("rpn", 400, 1600, (128, 128)),  # half of 256
        ("rpn", 3, 1997, (3, 253)),
    ],
)
def test_samples_have_the_ratio_of_the_paper(stage, objects, background, chosen):
    assigner, sampler = sampler_of(stage)
    truth = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 50.0, 50.0]]), labels=torch.tensor([1]))
    if not objects:
        truth = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    on_it, far = torch.tensor([0.0, 0.0, 50.0, 48.0]), torch.tensor([200.0, 200.0, 250.0, 250.0])
    given = InstanceData(priors=torch.cat([on_it.expand(objects, 4), far.expand(background, 4)]))
    result = sampler.sample(assigner.assign(given, truth), given, truth)
    added = int(stage == "rcnn" and objects > 0)  # the truth itself is one of the proposals
    positives, negatives = len(result.pos_inds), len(result.neg_inds)
    expected = min(objects + added, chosen[0] + (added if objects < 128 else 0))
    assert positives == expected
    assert negatives == chosen[1] - (added if objects < 128 else 0)
    assert len(set(result.pos_inds.tolist())) == positives
