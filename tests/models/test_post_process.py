"""The lean post-processing finds what MMDetection's finds, bit by bit, in the same order."""

import copy
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from fldet.config.load import load_config
from fldet.models.dense_heads import post_process
from fldet.models.dense_heads.post_process import (
    is_plain_nms,
    logit_floor,
    scores_above,
    select_candidates,
    suppress,
)
from fldet.registry import MODELS

K = 80
IMAGE = (256, 320)
LEVELS = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]  # the first two are large enough to filter
META = {"img_shape": IMAGE, "scale_factor": (1.25, 1.5)}
LOGIT = math.log(0.05 / 0.95)


@pytest.fixture(scope="module")
def head():
    init_default_scope("mmdet")
    model = load_config("retinanet/r50_fpn_1x.py").model
    config = model.bbox_head
    config.update(train_cfg=model.train_cfg, test_cfg=model.test_cfg)
    return MODELS.build(config).eval()


def maps(seed=0, *, mean=-9.0, images=1, levels=LEVELS, spread=1.5):
    """Scores and deltas of each level; about one score in 30 000 is above 0.05."""
    generator = torch.Generator().manual_seed(seed)

    def normal(channels, h, w):
        return torch.randn(images, channels, h, w, generator=generator)

    return (
        [spread * normal(9 * K, h, w) + mean for h, w in levels],
        [0.3 * normal(36, h, w) for h, w in levels],
    )


def both(head, outputs, *, metas=None, with_nms=True, rescale=False, **changes):
    metas = metas or [META] * len(outputs[0][0])
    found = []
    for way in ("stock", "lean"):
        cfg = copy.deepcopy(head.test_cfg)
        cfg.update(post_process=way, **changes)
        found.append(
            head.predict_by_feat(
                *outputs, batch_img_metas=metas, cfg=cfg, rescale=rescale, with_nms=with_nms
            )
        )
    return found


def assert_same(stock, lean):
    assert len(stock) == len(lean)
    for expected, found in zip(stock, lean, strict=True):
        assert set(expected.keys()) == set(found.keys())
        for name in ("scores", "labels", "bboxes"):
            assert torch.equal(expected[name], found[name]), name
            assert expected[name].dtype == found[name].dtype


@pytest.mark.parametrize(
    ("mean", "reason"),
    [
        (-40.0, "nothing is above the threshold"),
        (-9.5, "a few boxes"),
        (-6.5, "thousands on the first level"),
        (-3.0, "half of all logits: no filter"),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_same_detections_at_any_density(head, mean, reason, layout):
    outputs = [[m.contiguous(memory_format=layout) for m in ms] for ms in maps(mean=mean)]
    stock, lean = both(head, outputs)
    assert_same(stock, lean)
    assert (len(lean[0]) == 0) == (mean == -40.0), reason


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_scores_come_in_the_same_order(head, layout):
    scores, deltas = maps(mean=-6.0)
    coarse = [s.mul(4).round().div(4).contiguous(memory_format=layout) for s in scores]
    assert_same(*both(head, (coarse, deltas)))
    assert_same(*both(head, (coarse, [torch.zeros_like(d) for d in deltas]), rescale=True))


def test_all_scores_equal(head):
    scores, deltas = maps()
    assert_same(*both(head, ([torch.zeros_like(s) for s in scores], deltas), nms_pre=300))


@pytest.mark.parametrize(
    "changes",
    [
        {"score_thr": 0.0},
        {"score_thr": -1.0},
        {"score_thr": 0.5},
        {"score_thr": 0.999999},
        {"score_thr": 1.0},
        {"score_thr": 2.0},
        {"score_thr": 1e-45},
        {"nms_pre": -1},
        {"nms_pre": 0},
        {"nms_pre": 7},
        {"max_per_img": -1},
        {"max_per_img": 0},
        {"max_per_img": 3},
        {"max_per_img": 100_000},
        {"min_bbox_size": -1},
        {"min_bbox_size": 30},
        {"min_bbox_size": 10_000},
        {"nms": {"type": "nms", "iou_threshold": 0.5, "class_agnostic": True}},
        {"nms": {"type": "nms", "iou_threshold": 0.0}},
        {"nms": {"type": "nms", "iou_threshold": 1.0}},
        {"nms": {"type": "nms", "iou_threshold": 0.5, "split_thr": 50}},
        {"nms": {"type": "nms", "iou_threshold": 0.5, "max_num": 5}},
        {"nms": None},
    ],
    ids=repr,
)
def test_same_detections_with_every_option(head, changes):
    levels = LEVELS if changes.get("score_thr", 1) > 0.01 else LEVELS[1:]
    levels = [*levels, (1, 1)][:5]
    outputs = maps(mean=-7.0, levels=levels)
    changes = {name: ConfigDict(v) if isinstance(v, dict) else v for name, v in changes.items()}
    assert_same(*both(head, outputs, rescale=True, **changes))


def test_same_candidates_without_suppression(head):
    stock, lean = both(head, maps(mean=-6.5), with_nms=False, rescale=True)
    assert_same(stock, lean)
    assert len(lean[0]) > 1000


def test_same_detections_of_several_images(head):
    metas = [META, {"img_shape": (200, 300), "scale_factor": (2.0, 2.0)}, META]
    stock, lean = both(head, maps(mean=-7.0, images=3), metas=metas, rescale=True)
    assert_same(stock, lean)
    assert len(lean) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_types_are_computed_in_float32(head, dtype, layout):
    half = [
        [m.to(dtype).contiguous(memory_format=layout) for m in level] for level in maps(mean=-7.0)
    ]
    full = [[m.float() for m in level] for level in half]
    _, lean = both_lean = (both(head, full)[0], both(head, full)[1])
    cfg = head.test_cfg
    found = head.predict_by_feat(*half, batch_img_metas=[META], cfg=cfg)
    assert_same(both_lean[0], found)
    assert found[0].scores.dtype == lean[0].scores.dtype == torch.float32


def test_values_that_are_no_numbers_hide_no_others(head):
    scores, deltas = maps(mean=-8.0)
    for score in scores:
        flat = score.view(-1)
        flat[::5000] = math.nan
        flat[1::5001] = math.inf
        flat[2::5002] = -math.inf
    assert_same(*both(head, (scores, deltas)))


def test_an_unknown_way_is_refused(head):
    cfg = ConfigDict(head.test_cfg, post_process="fast")
    with pytest.raises(ValueError, match="must be lean or stock, got 'fast'"):
        head.predict_by_feat(*maps(), batch_img_metas=[META], cfg=cfg)


def test_maps_are_not_changed_and_need_no_gradient(head):
    outputs = maps(mean=-7.0)
    before = copy.deepcopy(outputs)
    for level in outputs[0]:
        level.requires_grad_()
    found = head.predict_by_feat(*outputs, batch_img_metas=[META])[0]
    assert not found.scores.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(outputs[1], before[1], strict=True))


@pytest.mark.parametrize("threshold", [1e-30, 0.001, 0.05, 0.5, 0.9, 0.9999, 1 - 1e-7])
def test_no_logit_below_the_floor_has_a_score_above_the_threshold(threshold):
    floor = logit_floor(threshold)
    logits = torch.full((1000,), floor) + torch.linspace(-1, 0, 1000)
    assert not (logits.sigmoid() > threshold).any()
    for dtype in (torch.bfloat16, torch.float16):
        rounded = torch.tensor(floor).to(dtype).float()
        assert not (rounded.sigmoid() > threshold).any()


def test_the_threshold_is_exact_to_the_last_bit():
    steps = torch.arange(-200, 200) * 2.0**-22  # one unit in the last place of the logit
    levels = (LOGIT + steps).repeat(4000)[: 90 * 128 * 128].reshape(-1, 128, 128)
    logits = levels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    scores, positions = scores_above(logits, 0.05)
    every = logits.permute(1, 2, 0).reshape(-1).sigmoid()
    assert torch.equal(positions, (every > 0.05).nonzero().squeeze(1))
    assert torch.equal(scores, every[positions])
    assert 0 < len(scores) < logits.numel()


@pytest.mark.parametrize("where", [0, 1023, 1024, 65_535, 100_351, 100_352, 100_799])
def test_a_single_logit_is_found_wherever_it_is(where):
    logits = torch.full((144, 20, 35), -9.0)
    logits.view(-1)[where] = 1.0
    scores, labels, rows = select_candidates(logits, 16, score_thr=0.05, nms_pre=10)
    channel, cell = divmod(where, 20 * 35)
    assert scores.tolist() == [torch.tensor(1.0).sigmoid().item()]
    assert (rows * 16 + labels).tolist() == [cell * 144 + channel]


def test_the_filter_gives_up_where_most_blocks_are_hot():
    assert post_process._indices_from(torch.zeros(100_000), -1.0) is None


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + 5 + 60 * torch.rand(count, 2, generator=generator)], 1)
    scores = torch.randint(1, 200, (count,), generator=generator) / 200
    return boxes, scores, torch.randint(0, 4, (count,), generator=generator)


@pytest.mark.parametrize("max_keep", [None, 0, 1, 40, 100, 700, 10_000])
@pytest.mark.parametrize("count", [1, 511, 512, 513, 3000])
def test_stopping_early_keeps_the_boxes_of_the_whole(count, max_keep):
    from mmcv.ops import batched_nms

    boxes, scores, labels = random_boxes(count)
    _, expected = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5})
    found = suppress(boxes, scores, labels, iou_threshold=0.5, max_keep=max_keep)
    assert torch.equal(found, expected[:max_keep])


@pytest.mark.parametrize(
    ("cfg", "plain"),
    [
        ({"type": "nms", "iou_threshold": 0.5}, True),
        ({"iou_threshold": 0.5, "class_agnostic": True}, True),
        ({"type": "soft_nms", "iou_threshold": 0.5}, False),
        ({"type": "nms", "iou_thr": 0.5}, False),
        ({"type": "nms", "iou_threshold": 0.5, "split_thr": 500}, False),
        (None, False),
    ],
)
def test_other_kinds_of_suppression_are_left_to_mmcv(cfg, plain):
    assert is_plain_nms(cfg, 600) == plain
