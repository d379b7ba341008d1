"""SSD's head: MMDetection's with equal weights, and the authors' loss and layers in plain NumPy."""

from itertools import chain
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import fldet.models  # noqa: F401 - registers
from fldet.config.load import load_config
from fldet.models.dense_heads.ssd_head import SSDHead

CONFIGS = Path(mmdet.__path__[0], ".mim", "configs")


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmdet")


def truth(*rows):
    """Rows of x1, y1, x2, y2, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return InstanceData(bboxes=table[:, :4], labels=table[:, 4].long())


# --- MMDetection's SSD ---


def config_of(side, kind="SSDHead"):
    if side == 512 and kind == "fldet.SSDHead":
        model = load_config("systems/mmdet_ssd512.py").model
    else:
        name = f"ssd/ssd{side}_coco.py"
        model = Config.fromfile(CONFIGS / name).model
        model.bbox_head.type = kind
    model.backbone.init_cfg = None
    model.test_cfg.score_thr = 0.0125  # just above 1/81
    return ConfigDict(model)


@pytest.mark.parametrize("side", [300, 512])
def test_mmdetections_weights_fit_our_config_and_head(side):
    with torch.device("meta"):
        theirs = MODELS.build(config_of(side)).state_dict()
        ours = MODELS.build(config_of(side, "fldet.SSDHead")).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(
    ("side", "sizes"), [(300, (38, 19, 10, 5, 3, 1)), (512, (64, 32, 16, 8, 4, 2, 1))]
)
def test_mmdetections_head_with_equal_weights(side, sizes):
    torch.manual_seed(0)
    config, ours_config = (config_of(side, kind) for kind in ("SSDHead", "fldet.SSDHead"))
    heads = []
    for one in (config, ours_config):
        one.bbox_head.update(train_cfg=one.train_cfg, test_cfg=one.test_cfg, num_classes=8)
        one.bbox_head.in_channels = [16] * len(sizes)
        heads.append(MODELS.build(one.bbox_head).eval())
    theirs, ours = heads
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.loss_cls = None  # without it theirs dies
    features = [3 * torch.randn(2, 16, size, size) for size in sizes]
    metas = [
        {"img_shape": (side, side - 9), "pad_shape": (side, side), "scale_factor": (2.0, 1.5)}
    ] * 2
    with torch.no_grad():
        maps, expected = ours(features), theirs(features)
        for one, other in zip(chain(*maps), chain(*expected), strict=True):
            assert one.equal(other)
        found = ours.predict_by_feat(*maps, batch_img_metas=metas, rescale=True)
        wanted = theirs.predict_by_feat(*expected, batch_img_metas=metas, rescale=True)
    for one, other in zip(found, wanted, strict=True):
        assert len(one) == 200
        assert one.bboxes.equal(other.bboxes)
        assert one.scores.equal(other.scores)
        assert one.labels.equal(other.labels)
    boxes = [truth((10, 10, 90, 100, 3), (50, 60, 250, 200, 0)), truth((100, 20, 110, 40, 7))]
    losses = ours.loss_by_feat(*maps, boxes, metas)
    for name, values in theirs.loss_by_feat(*expected, boxes, metas).items():
        torch.testing.assert_close(losses[name], torch.stack([v.squeeze() for v in values]).sum())


# --- a small head of our own ---

STRIDES, SIZES = [16, 32], [4, 2]
TEST = {
    "score_thr": 0.01,
    "nms_pre_per_class": 30,
    "nms": {"iou_threshold": 0.45},
    "max_per_img": 40,
}


def small_head(num_classes=3, **options):
    return SSDHead(
        num_classes,
        [8, 12],
        anchor_generator={
            "type": "fldet.DefaultBoxes",
            "strides": STRIDES,
            "min_sizes": [12, 28],
            "max_sizes": [28, 50],
            "ratios": [[2], [1.6, 3]],
        },
        bbox_coder={"type": "DeltaXYWHBBoxCoder", "target_stds": [0.1, 0.1, 0.2, 0.2]},
        train_cfg=ConfigDict(
            assigner={"type": "fldet.BipartiteAssigner"}, allowed_border=-1, pos_weight=-1
        ),
        test_cfg=ConfigDict(TEST),
        **options,
    )


def random_maps(head, images=2, scale=2.0):
    generator = torch.Generator().manual_seed(3)
    features = [
        torch.randn(images, channels, size, size, generator=generator)
        for channels, size in zip((8, 12), SIZES, strict=True)
    ]
    torch.manual_seed(1)
    for tower in [*head.cls_convs, *head.reg_convs]:
        torch.nn.init.normal_(tower[-1].weight, std=scale / 10)
    return head(features)


def rows_of(maps, width):
    """(N, boxes, width) in the order of the default boxes, as float64."""
    rows = [m.detach().permute(0, 2, 3, 1).reshape(len(m), -1, width) for m in maps]
    return torch.cat(rows, 1).double().numpy()


def priors_of(head):
    sizes = [(size, size) for size in SIZES]
    return torch.cat(head.prior_generator.grid_priors(sizes, device="cpu")).double().numpy()


def iou_of(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return width * height / (sum(areas) - width * height)


def match_boxes(priors, boxes):
    """The authors' MatchBBox: index of the object of each default box, -1 for none."""
    overlap = np.array([[iou_of(p, b) for b in boxes] for p in priors]).reshape(len(priors), -1)
    match, pool = [-1] * len(priors), list(range(len(boxes)))
    while pool:
        best = (-1, -1, -1.0)
        for i in range(len(priors)):
            for j in pool:
                if match[i] == -1 and overlap[i, j] > 1e-6 and overlap[i, j] > best[2]:
                    best = (i, j, overlap[i, j])
        if best[0] == -1:
            break
        match[best[0]] = best[1]
        pool.remove(best[1])
    for i in range(len(priors)):
        if match[i] == -1 and len(boxes) and overlap[i].max() >= 0.5:
            match[i] = int(overlap[i].argmax())
    return match


def multi_box_loss(logits, deltas, priors, truths, num_classes):
    """MultiBoxLoss with hard negatives 3:1 per image; the sums over the matched boxes of all."""
    confidence = location = positives = 0
    for scores, offsets, (boxes, labels) in zip(logits, deltas, truths, strict=True):
        log_p = scores - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True))
        log_p -= scores.max(1, keepdims=True)
        match = match_boxes(priors, boxes)
        negative_losses = []
        for i, j in enumerate(match):
            if j == -1:
                negative_losses.append(-log_p[i, num_classes])
                continue
            positives += 1
            confidence -= log_p[i, labels[j]]
            px, py = (priors[i, :2] + priors[i, 2:]) / 2
            pw, ph = priors[i, 2:] - priors[i, :2]
            x, y = (boxes[j][:2] + boxes[j][2:]) / 2
            w, h = boxes[j][2:] - boxes[j][:2]
            code = [
                (x - px) / pw / 0.1,
                (y - py) / ph / 0.1,
                np.log(w / pw) / 0.2,
                np.log(h / ph) / 0.2,
            ]
            gap = np.abs(offsets[i] - code)
            location += np.where(gap < 1, gap**2 / 2, gap - 0.5).sum()
        hardest = sorted(negative_losses, reverse=True)
        confidence += sum(hardest[: 3 * (len(match) - len(negative_losses))])
    return (confidence / positives, location / positives) if positives else (0.0, 0.0)


SAME_BEST = ((6, 6, 18, 18, 0), (7, 7, 19, 19, 2))  # both want the first square
TRUTHS = {
    "one": [[(10, 8, 30, 26, 1)]],
    "two with one best box": [SAME_BEST],
    "one of two images empty": [[], [(4, 4, 40, 20, 2), (30, 30, 58, 60, 0), (33, 30, 60, 60, 1)]],
    "empty": [[], []],
}


@pytest.mark.parametrize("rows", TRUTHS.values(), ids=TRUTHS)
def test_matching_mining_and_loss_against_a_literal_multi_box(rows):
    head = small_head()
    maps = random_maps(head, len(rows))
    metas = [{"img_shape": (64, 64), "pad_shape": (64, 64)}] * len(rows)
    losses = head.loss_by_feat(*maps, [truth(*some) for some in rows], metas)
    arrays = [np.array(some, np.float64).reshape(-1, 5) for some in rows]
    expected = multi_box_loss(
        rows_of(maps[0], 4),
        rows_of(maps[1], 4),
        priors_of(head),
        [(a[:, :4], a[:, 4].astype(int)) for a in arrays],
        num_classes=3,
    )
    assert losses["loss_cls"].item() == pytest.approx(expected[0], rel=1e-5)
    assert losses["loss_bbox"].item() == pytest.approx(expected[1], rel=1e-5)
    assert (losses["loss_cls"] > 0) == any(map(len, rows))
    (losses["loss_cls"] + losses["loss_bbox"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def detection_output(logits, deltas, priors, side):
    """The authors' DetectionOutput: rows of label, score, box, best first."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    center, size = (priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]
    center = center + deltas[:, :2] * 0.1 * size
    size = size * np.exp(deltas[:, 2:] * 0.2)
    boxes = np.concatenate([center - size / 2, center + size / 2], 1)
    found = []
    for label in range(p.shape[1] - 1):
        order = [i for i in np.argsort(-p[:, label]) if p[i, label] > TEST["score_thr"]]
        kept = []
        for i in order[: TEST["nms_pre_per_class"]]:
            if all(iou_of(boxes[i], boxes[j]) <= 0.45 for j in kept):
                kept.append(i)
        found += [(label, p[i, label], *boxes[i].clip(0, side)) for i in kept]
    return sorted(found, key=lambda row: -row[1])[: TEST["max_per_img"]]


def test_detections_against_a_literal_detection_output():
    head = small_head()
    maps = random_maps(head)
    metas = [{"img_shape": (64, 64), "scale_factor": (0.5, 2.0)}] * 2
    found = head.predict_by_feat(*maps, batch_img_metas=metas)
    scaled = head.predict_by_feat(*maps, batch_img_metas=metas, rescale=True)
    for image in range(2):
        rows = (rows_of(maps[0], 4)[image], rows_of(maps[1], 4)[image])
        expected = np.array(detection_output(*rows, priors_of(head), 64))
        assert 20 < len(expected) <= 40
        assert found[image].labels.tolist() == expected[:, 0].tolist()
        np.testing.assert_allclose(found[image].scores.detach(), expected[:, 1], rtol=1e-5)
        np.testing.assert_allclose(found[image].bboxes.detach(), expected[:, 2:], atol=1e-3)
        factors = found[image].bboxes.new_tensor([2.0, 0.5, 2.0, 0.5])
        torch.testing.assert_close(scaled[image].bboxes, found[image].bboxes * factors)


def test_nothing_above_the_threshold():
    head = small_head()
    maps = random_maps(head)
    cfg = {**TEST, "score_thr": 1.0}
    metas = [{"img_shape": (64, 64)}] * 2
    for one in head.predict_by_feat(*maps, batch_img_metas=metas, cfg=cfg):
        assert one.bboxes.shape == (0, 4)
    with pytest.raises(ValueError, match="nms of each class"):
        head.predict_by_feat(
            *maps, batch_img_metas=metas, cfg={**TEST, "nms": {"type": "soft_nms"}}
        )


def test_kernels_of_each_map():
    head = small_head(kernel_sizes=(5, 3))
    assert [tower[-1].kernel_size for tower in head.reg_convs] == [(5, 5), (3, 3)]
    assert [m.shape for m in random_maps(head)[0]] == [(2, 16, 4, 4), (2, 24, 2, 2)]
    for wrong in ((5,), (4, 3)):
        with pytest.raises(ValueError, match="2 odd numbers"):
            small_head(kernel_sizes=wrong)


def test_a_loss_of_ones_choice():
    head = small_head(loss_cls={"type": "mmdet.CrossEntropyLoss", "loss_weight": 2.0})
    maps = random_maps(head)
    args = ([truth((10, 8, 30, 26, 1))] * 2, [{"img_shape": (64, 64), "pad_shape": (64, 64)}] * 2)
    double = head.loss_by_feat(*maps, *args)
    head.loss_cls.loss_weight = 1.0
    single = head.loss_by_feat(*maps, *args)
    torch.testing.assert_close(double["loss_cls"], 2 * single["loss_cls"])
    assert double["loss_bbox"].equal(single["loss_bbox"])
    assert double["num_mined"].equal(single["num_mined"])
