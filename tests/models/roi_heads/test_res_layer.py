"""The last stage of a ResNet as a shared head: MMDetection's at its width, and narrower ones."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.models.roi_heads.shared_heads import ResLayer as MMDetResLayer
from torch import nn

from fldet.models.roi_heads.res_layer import ResLayer


@pytest.mark.parametrize(("depth", "style"), [(18, "pytorch"), (50, "caffe"), (50, "pytorch")])
def test_with_64_channels_it_is_mmdetections(depth, style):
    torch.manual_seed(0)
    theirs, mine = MMDetResLayer(depth, style=style), ResLayer(depth, style=style)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 256 if depth == 18 else 1024, 7, 5)
    assert torch.equal(mine(x), theirs(x))


@pytest.mark.parametrize("depth", [18, 50])
def test_a_narrow_one_continues_a_narrow_backbone(depth):
    """Three stages and this one compute what a ResNet of four computes, with its weights."""
    torch.manual_seed(0)
    settings = {"depth": depth, "base_channels": 4, "norm_eval": True}
    whole, head = ResNet(**settings, out_indices=(2, 3)), ResLayer(**settings)
    whole.train()
    head.train()
    weights = {k: v for k, v in whole.state_dict().items() if k.startswith("layer4.")}
    head.load_state_dict(weights, strict=True)
    before, expected = whole(torch.randn(1, 3, 75, 61))
    assert torch.equal(head(before), expected)


@pytest.mark.parametrize("norm_eval", [True, False])
def test_norms_keep_their_statistics_if_asked(norm_eval):
    head = ResLayer(18, base_channels=4, norm_eval=norm_eval).train()
    before = {k: v.clone() for k, v in head.state_dict().items() if "running" in k}
    head(torch.randn(4, 16, 8, 8))
    kept = all(torch.equal(head.state_dict()[name], value) for name, value in before.items())
    assert kept is norm_eval
    assert not any(module.training for module in head.eval().modules())


def test_starts_as_he_et_al_say():
    head = ResLayer(18, base_channels=32)
    head.init_weights()
    conv = head.layer4[0].conv2
    fan_out = conv.out_channels * 9
    assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() for norm in norms)


@pytest.mark.parametrize("options", [{"depth": 17}, {"depth": 18, "stage": 4}])
def test_unknown_depths_and_stages_are_refused(options):
    with pytest.raises(ValueError, match="expected a "):
        ResLayer(**options)
