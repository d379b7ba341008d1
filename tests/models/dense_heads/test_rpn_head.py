"""The RPN's targets, in images that hold some of its anchors and in those that hold none."""

import pytest
import torch
from mmdet.models.dense_heads import RPNHead as MMDetRPNHead
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from fldet.config.load import load_config
from fldet.models.dense_heads.rpn_head import RPNHead

OURS = "systems/faster_rcnn_r101_c4.py"


def head_of(kind, border=0):
    """An RPN of 64-pixel anchors and larger ones, at stride 16, with the samples of the C4."""
    init_default_scope("mmdet")
    cfg = load_config(OURS).model
    torch.manual_seed(0)
    options = {name: value for name, value in cfg.rpn_head.items() if name != "type"}
    return kind(
        **{**options, "in_channels": 4, "feat_channels": 4},
        train_cfg=ConfigDict({**cfg.train_cfg.rpn, "allowed_border": border}),
    )


def batch(*sizes):
    """Maps for images of (height, width), padded to the largest ones, and one box in each."""
    height, width = (max(side) for side in zip(*sizes, strict=True))
    metas = [{"img_shape": size, "pad_shape": (height, width)} for size in sizes]
    boxes = [torch.tensor([[2.0, 3.0, w * 0.4, h * 0.8]]) for h, w in sizes]
    truth = [InstanceData(bboxes=box, labels=torch.zeros(1, dtype=torch.long)) for box in boxes]
    shape = (len(sizes), 4, -(-height // 16), -(-width // 16))
    return (torch.randn(shape, generator=torch.Generator().manual_seed(1)),), truth, metas


def targets(head, maps, truth, metas):
    anchors, valid = head.get_anchors([maps[0].shape[-2:]], metas, device="cpu")
    torch.manual_seed(2)  # the sampler draws
    return head.get_targets(anchors, valid, truth, metas)


def assert_equal(found, expected):
    *mine, my_factor = found
    *others, other_factor = expected
    assert my_factor == other_factor
    for one, other in zip(mine, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("border", [-1, 0, 8])
@pytest.mark.parametrize("sizes", [[(160, 200)], [(66, 300), (128, 97)]])
def test_where_an_anchor_lies_inside_the_targets_are_mmdetections(border, sizes):
    given = batch(*sizes)
    found = targets(head_of(RPNHead, border), *given)
    assert_equal(found, targets(head_of(MMDetRPNHead, border), *given))


@pytest.mark.parametrize("size", [(33, 500), (500, 33), (20, 20), (1, 1)])
def test_an_image_with_no_anchor_inside_learns_from_all_of_its_anchors(size):
    given = batch(size)
    with pytest.raises(ValueError, match="no valid anchor inside"):
        targets(head_of(MMDetRPNHead), *given)
    ours = head_of(RPNHead)
    assert_equal(targets(ours, *given), targets(head_of(MMDetRPNHead, border=-1), *given))
    assert ours.train_cfg.allowed_border == 0


def test_only_that_image_of_a_batch_does_so_and_the_loss_is_finite():
    head = head_of(RPNHead)
    thin, large = (33, 500), (160, 200)
    maps, truth, metas = batch(thin, large)
    weights = targets(head, maps, truth, metas)[1][0]  # of the labels, (N, anchors)
    anchors, valid = head.get_anchors([maps[0].shape[-2:]], metas, device="cpu")
    inside = (anchors[1][0] >= 0).all(1) & (
        anchors[1][0] < anchors[1][0].new_tensor([200, 160] * 2)
    ).all(1)
    assert weights[0].sum() == 256  # the samples of an image
    assert not weights[0][~valid[0][0]].any()
    assert weights[1].any()
    assert not weights[1][~inside].any()
    losses = head.loss_by_feat(*head(maps), truth, metas)
    total = sum(one for values in losses.values() for one in values)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(weight.grad).all() for weight in head.parameters())
