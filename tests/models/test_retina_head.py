import copy
from itertools import chain

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from fldet.checkpoints.model import build_model
from fldet.config.load import load_config
from fldet.models.dense_heads.retina_head import RetinaHead
from fldet.registry import MODELS

IMAGE = (96, 128)
LEVELS = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
METAS = {"img_shape": IMAGE, "pad_shape": IMAGE, "scale_factor": (1.0, 1.0), "ori_shape": IMAGE}


def head_config(**changes):
    init_default_scope("mmdet")
    model = load_config("retinanet/r50_fpn_1x.py").model
    head = model.bbox_head
    head.update(train_cfg=model.train_cfg, test_cfg=model.test_cfg)
    head.update(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
    for key, value in changes.items():
        head[key] = value  # ConfigDict.update would merge dicts
    return head


def mmdet_head_config():
    theirs = copy.deepcopy(head_config())
    theirs.type = "RetinaHead"
    theirs.pop("prior_prob")
    theirs.pop("normalizer")
    theirs.anchor_generator = dict(
        type="AnchorGenerator",
        octave_base_scale=4,
        scales_per_octave=3,
        ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
    )
    theirs.loss_cls.type = "FocalLoss"
    return theirs


def features(num_images=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(num_images, 8, h, w, generator=generator) for h, w in LEVELS]


def truth(boxes, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )


TWO_IMAGES = [
    truth([[10, 10, 50, 60], [60, 20, 120, 80]], [0, 2]),
    truth([[5, 5, 40, 30]], [1]),
]


def losses_of(head, instances):
    outputs = head(features(len(instances)))
    return head.loss_by_feat(*outputs, instances, [METAS] * len(instances))


def targets_of(head, instances):
    metas = [METAS] * len(instances)
    return head.get_targets(*head.get_anchors(LEVELS, metas, "cpu"), instances, metas)


def num_positives(head, instances):
    return sum(int((level < 3).sum()) for level in targets_of(head, instances)[0])


def total(losses):
    return {name: sum(v) if isinstance(v, list) else v for name, v in losses.items()}


def test_losses_equal_mmdets():
    theirs = MMDET_MODELS.build(mmdet_head_config())
    theirs.init_weights()
    ours = MODELS.build(head_config())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    expected, found = total(losses_of(theirs, TWO_IMAGES)), losses_of(ours, TWO_IMAGES)
    for name in ("loss_cls", "loss_bbox"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_every_anchor_starts_near_the_prior():
    head = MODELS.build(head_config(prior_prob=0.02))
    head.init_weights()
    scores = torch.cat([s.sigmoid().flatten() for s in head(features())[0]])
    assert scores.mean().item() == pytest.approx(0.02, rel=0.05)


def test_without_a_prior_every_anchor_starts_at_one_half():
    head = MODELS.build(head_config(prior_prob=None))
    head.init_weights()
    scores = torch.cat([s.sigmoid().flatten() for s in head(features())[0]])
    assert scores.mean().item() == pytest.approx(0.5, abs=0.02)


DECODED = dict(reg_decoded_bbox=True, loss_bbox=dict(type="GIoULoss", loss_weight=1.0))


@pytest.mark.parametrize("changes", [{}, DECODED], ids=["smooth L1", "GIoU"])
def test_an_image_without_boxes_gives_a_finite_loss_with_gradients_everywhere(changes):
    head = MODELS.build(head_config(**changes))
    head.init_weights()
    losses = losses_of(head, [truth([], [])])
    sum(losses.values()).backward()
    assert losses["loss_bbox"] == 0
    assert torch.isfinite(losses["loss_cls"])
    assert losses["loss_cls"] > 0
    assert all(p.grad is not None for p in head.parameters())


def test_box_loss_ignores_background_deltas():
    head = MODELS.build(head_config())
    head.init_weights()
    cls_scores, bbox_preds = head(features(1))
    before = head.loss_by_feat(cls_scores, bbox_preds, TWO_IMAGES[1:], [METAS])["loss_bbox"]
    bbox_preds[0][..., -1, -1] += 1000  # the lower right corner is far from the only box
    after = head.loss_by_feat(cls_scores, bbox_preds, TWO_IMAGES[1:], [METAS])["loss_bbox"]
    assert before > 0
    torch.testing.assert_close(before, after)


def test_decoded_box_loss_can_be_used():
    head = MODELS.build(head_config(**DECODED))
    head.init_weights()
    loss = losses_of(head, TWO_IMAGES)["loss_bbox"]
    assert 0 < loss < 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior_prob": 1.0}, r"prior_prob must be None or in \(0, 1\), got 1.0"),
        ({"loss_cls": dict(type="fldet.FocalLoss")}, "loss_cls needs use_sigmoid=True"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    config = head_config(**changes)
    config.pop("type")
    with pytest.raises(ValueError, match=message):
        RetinaHead(**config)


MINERS = [
    dict(type="fldet.OHEM", num_examples=16, iou_threshold=0.5),
    dict(type="fldet.OHEM", num_examples=16, nms_on="decoded", score="total", per="batch"),
    dict(type="fldet.OHEM", num_examples=16, neg_pos_ratio=3, divisor="positives"),
    dict(type="fldet.HardNegatives"),
]


def mining_head(miner, **changes):
    config = head_config(
        loss_cls=dict(type="fldet.CrossEntropyLoss", use_sigmoid=True, loss_weight=2.0), **changes
    )
    config.train_cfg.miner = miner
    head = MODELS.build(config)
    head.init_weights()
    return head


@pytest.mark.parametrize("miner", MINERS, ids=lambda miner: str(miner)[7:60])
@pytest.mark.parametrize("instances", [TWO_IMAGES, [truth([], [])], [truth([[0, 0, 9, 9]], [1])]])
def test_mining_gives_finite_losses_with_gradients(miner, instances):
    losses = losses_of(head := mining_head(miner), instances)
    sum(losses.values()).backward()
    assert losses["num_mined"] <= 32 or miner["type"] == "fldet.HardNegatives"
    assert torch.isfinite(losses["loss_cls"])
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_only_what_the_miner_keeps_has_a_classification_gradient():
    head = mining_head(dict(type="fldet.OHEM", num_examples=16, iou_threshold=0.5))
    cls_scores, bbox_preds = head(features())
    for level in cls_scores:
        level.retain_grad()
    losses = head.loss_by_feat(cls_scores, bbox_preds, TWO_IMAGES, [METAS] * 2)
    losses["loss_cls"].backward()
    touched = sum(int((level.grad.unflatten(1, (9, 3)) != 0).any(2).sum()) for level in cls_scores)
    assert touched == losses["num_mined"] == 32
    # cross entropy of the kept ones, over their number
    starting = -torch.log(torch.tensor(0.99)) * 3
    assert losses["loss_cls"] > 2 * starting


def test_mined_loss_is_divided_by_the_selected_or_the_positives():
    losses = {}
    for divisor in ("selected", "positives"):
        torch.manual_seed(0)
        head = mining_head(dict(type="fldet.OHEM", num_examples=16, divisor=divisor))
        losses[divisor] = losses_of(head, TWO_IMAGES)
    num_pos = num_positives(head, TWO_IMAGES)
    assert losses["positives"]["num_mined"] == 32
    torch.testing.assert_close(
        losses["selected"]["loss_cls"] * 32, losses["positives"]["loss_cls"] * num_pos
    )
    assert losses["selected"]["loss_bbox"] == losses["positives"]["loss_bbox"]


def test_ignored_anchors_are_never_mined():
    seen = []

    class Spy:
        divisor = "selected"

        def mine(self, images):
            seen.extend(images)
            return [torch.arange(len(image.cls_losses)) for image in images]

    head = mining_head(dict(type="fldet.OHEM"))
    head.miner = Spy()
    spied = losses_of(head, TWO_IMAGES)
    head.miner = None
    plain = losses_of(head, TWO_IMAGES)
    total_anchors = sum(9 * h * w for h, w in LEVELS)
    assert all(len(image.cls_losses) < total_anchors for image in seen)
    assert all(torch.isfinite(image.decoded).all() for image in seen)
    num_pos = num_positives(head, TWO_IMAGES)
    torch.testing.assert_close(
        spied["loss_cls"] * spied["num_mined"] / num_pos, plain["loss_cls"], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.0), (0.75, 0.0)])
@pytest.mark.parametrize("prior", [0.01, 0.1, None])
def test_the_first_loss_has_its_predicted_value(alpha, gamma, prior):
    """Sec. 3.3, 4.1: at first every anchor scores pi, so the loss is known beforehand."""
    loss_cls = dict(type="fldet.FocalLoss", use_sigmoid=True, alpha=alpha, gamma=gamma)
    head = MODELS.build(head_config(loss_cls=loss_cls, prior_prob=prior))
    head.init_weights()
    found = losses_of(head, TWO_IMAGES)["loss_cls"].item()

    num_pos = num_positives(head, TWO_IMAGES)
    _, weights, *_ = targets_of(head, TWO_IMAGES)
    num_neg = 3 * sum(int(level.sum()) for level in weights) - num_pos
    pi = torch.tensor(0.5 if prior is None else prior, dtype=torch.float64)
    balance_pos, balance_neg = (1, 1) if alpha is None else (alpha, 1 - alpha)
    expected = (
        -balance_pos * num_pos * (1 - pi) ** gamma * pi.log()
        - balance_neg * num_neg * pi**gamma * (1 - pi).log()
    ) / num_pos
    assert found == pytest.approx(expected.item(), rel=0.05)


def mmdet_r50(num_classes=80):
    cfg = load_config("mmdet::retinanet/retinanet_r50_fpn_1x_coco.py")
    cfg.model.backbone.init_cfg = None
    cfg.model.bbox_head.num_classes = num_classes
    return cfg


def our_r50():
    cfg = load_config("retinanet/mmdet_r50_fpn_1x.py")
    cfg.model.backbone.init_cfg = None
    return cfg


def test_mmdets_r50_loads_strictly_with_equal_outputs_and_detections():
    torch.manual_seed(0)
    theirs = build_model(mmdet_r50()).eval()
    image = torch.randn(1, 3, *IMAGE)
    with torch.no_grad():  # random weights score at the prior: spread them so that boxes pass
        theirs.bbox_head.retina_cls.weight /= theirs(image)[0][0].std()
    ours = build_model(our_r50()).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        outputs, expected = ours(image), theirs(image)
        for mine, other in zip(chain(*outputs), chain(*expected), strict=True):
            assert torch.equal(mine, other)
        detections = ours.bbox_head.predict_by_feat(*outputs, batch_img_metas=[METAS])[0]
        their_detections = theirs.bbox_head.predict_by_feat(*expected, batch_img_metas=[METAS])[0]
    assert len(detections) > 0
    for field in ("bboxes", "scores", "labels"):
        assert torch.equal(detections[field], their_detections[field])


GHM = dict(
    loss_cls=dict(type="GHMC", use_sigmoid=True, bins=30, momentum=0.75),
    loss_bbox=dict(type="GHMR", mu=0.02, bins=10, momentum=0.7),
)


@pytest.mark.parametrize("changes", [{}, {"loss_cls": GHM["loss_cls"]}, GHM], ids=["", "C", "C R"])
@pytest.mark.parametrize("instances", [TWO_IMAGES, [truth([], [])]], ids=["boxes", "none"])
def test_losses_that_mmdets_head_calls_are_called_alike(changes, instances):
    config = mmdet_head_config()
    for key, value in changes.items():
        config[key] = value
    theirs = MMDET_MODELS.build(config)
    theirs.init_weights()
    ours = MODELS.build(head_config(normalizer=dict(type="fldet.CountPerRank"), **changes))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    found = losses_of(ours, instances)
    assert all(torch.isfinite(one) for one in found.values())
    if "loss_bbox" not in changes:  # GHM counts what it is given: there a level, here all of them
        expected = total(losses_of(theirs, instances))
        torch.testing.assert_close(found["loss_bbox"], expected["loss_bbox"], rtol=1e-5, atol=1e-6)
