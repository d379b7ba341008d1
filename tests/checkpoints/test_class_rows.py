"""Weights of other classes: what a layer says of a class is what it said before."""

import pytest
import torch
from torch import nn

from fldet.checkpoints.class_rows import carry_rows, class_layers
from fldet.registry import MODELS

BEFORE, NOW = ("cat", "dog", "cow"), ("bird", "cow", "cat", "fish")
ANCHORS = dict(type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0], strides=[8, 16])


def with_head(name, **settings):
    model = nn.Module()
    setattr(model, name, MODELS.build(settings))
    for weight in model.parameters():
        nn.init.normal_(weight)
    return model


def retina(classes):
    head = dict(type="fldet.RetinaHead", in_channels=4, feat_channels=4, stacked_convs=1)
    loss = dict(type="fldet.FocalLoss", use_sigmoid=True)
    norm = dict(type="GN", num_groups=2)
    return with_head(
        "bbox_head", **head, loss_cls=loss, norm_cfg=norm, anchor_generator=ANCHORS,
        num_classes=len(classes), prior_prob=0.01,
    )  # fmt: skip


def ssd(classes):
    generator = dict(
        type="SSDAnchorGenerator", scale_major=False, input_size=64, strides=[8, 16],
        ratios=[[2], [2]], min_sizes=[10, 20], max_sizes=[20, 40],
    )  # fmt: skip
    return with_head(
        "bbox_head", type="fldet.SSDHead", in_channels=(4, 4), num_classes=len(classes),
        anchor_generator=generator,
    )  # fmt: skip


def yolo(classes):
    return with_head("bbox_head", type="fldet.YOLOv2Head", num_classes=len(classes), in_channels=4)


def fast(classes):
    return with_head(
        "roi_head", type="Shared2FCBBoxHead", in_channels=4, fc_out_channels=8, roi_feat_size=1,
        num_classes=len(classes),
    )  # fmt: skip


def of_class(model, make, classes, name, features):
    """What the layers say of a class, whatever stands beside it; None for the rest."""
    k, label = len(classes), None if name is None else classes.index(name)
    if make is fast:
        score, deltas = model.roi_head(features[0][:, :, :1, :1])
        background = score[:, -1]
        return background if label is None else torch.cat(
            [score[:, [label]], deltas[:, 4 * label : 4 * label + 4]], dim=1
        )  # fmt: skip
    if make is yolo:
        maps = model.bbox_head.forward(features[:1])[0][0].unflatten(1, (-1, 5 + k))
        return maps[:, :, :5] if label is None else maps[:, :, 5 + label]
    scores = model.bbox_head(features)[0]
    blocks = [one.unflatten(1, (-1, k + (make is ssd))) for one in scores]
    return blocks[0][:, :, -1 if label is None else label]


@pytest.mark.parametrize("make", [retina, ssd, yolo, fast])
def test_a_class_keeps_its_scores_wherever_it_stands(make):
    torch.manual_seed(0)
    old, new = make(BEFORE).eval(), make(NOW).eval()
    first = {name: value.clone() for name, value in new.state_dict().items()}
    weights = old.state_dict()
    assert carry_rows(new, weights, BEFORE, NOW) == ("cow", "cat")
    features = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4)]
    new.load_state_dict(weights)
    same = ["cow", "cat"] if make is retina else ["cow", "cat", None]
    for name in same:
        torch.testing.assert_close(
            *(
                of_class(one, make, names, name, features)
                for one, names in ((old, BEFORE), (new, NOW))
            )
        )
    for layer in class_layers(new):  # the other rows are the first ones of the model
        shape = (-1, layer.outputs(len(NOW)))
        rows = weights[f"{layer.name}.bias"].reshape(shape)[
            :, layer.before : layer.before + layer.per_class
        ]
        own = first[f"{layer.name}.bias"].reshape(shape)[
            :, layer.before : layer.before + layer.per_class
        ]
        assert torch.equal(rows, own)


def test_as_many_classes_in_another_order_are_put_in_order():
    old, new = retina(BEFORE), retina(BEFORE)
    weights = dict(old.state_dict())
    assert carry_rows(new, weights, BEFORE, ("dog", "cat", "cow")) == ("dog", "cat", "cow")
    key = "bbox_head.retina_cls.weight"
    rows = old.state_dict()[key].reshape(2, 3, -1)[:, [1, 0, 2]]
    assert torch.equal(weights[key].reshape(2, 3, -1), rows)


def test_nothing_is_carried_without_a_common_class_or_with_other_anchors():
    new, weights = retina(NOW), dict(retina(BEFORE).state_dict())
    kept = dict(weights)
    assert carry_rows(new, weights, ("a", "b", "c"), NOW) == ()
    weights["bbox_head.retina_cls.weight"] = torch.zeros(9, 4, 3, 3)
    del weights["bbox_head.retina_cls.bias"]
    assert carry_rows(new, weights, BEFORE, NOW) == ()
    assert weights["bbox_head.retina_cls.weight"].shape == (9, 4, 3, 3)
    assert kept["bbox_head.retina_cls.bias"].shape == (6,)
