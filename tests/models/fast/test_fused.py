"""Networks whose convolutions rectify compute what they did before."""

import copy
import platform
import re

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet, ResNetV1d, ResNeXt
from torch import nn

from fldet.models.backbones.efficientnet_lite import EfficientNetLite
from fldet.models.fast.fused import fuse_rectifiers
from fldet.models.fast.optimize import fold_batch_norms

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="for x86 processors"
)

NETWORKS = {
    # a ReLU for each convolution of a block, and one of the stem
    "basic blocks": (lambda: ResNet(18), 17),
    "bottlenecks": (lambda: ResNet(50), 49),
    "the other place of the stride": (lambda: ResNet(50, style="caffe"), 49),
    "a stem of three convolutions, average pooling": (lambda: ResNetV1d(depth=50), 48),
    "blocks of a subclass": (lambda: ResNeXt(depth=50, groups=32, base_width=4), 0),
    "plugins between the layers": (lambda: ResNet(50, plugins=PLUGINS), 1),
    "norms that are not folded": (lambda: ResNet(18, norm_cfg={"type": "GN", "num_groups": 1}), 0),
    "another ReLU in the blocks": (lambda: rectified_by(ResNet(18), nn.ReLU6(), "layer.*"), 1),
    "another in the stem": (lambda: rectified_by(ResNet(18), nn.LeakyReLU(0.3), ""), 17),
    "one the operator does not know": (
        lambda: rectified_by(ResNet(18), nn.ELU(), "layer.*"),
        1,
    ),
    # two for each block but the first, and one of the stem
    "EfficientNet-Lite0": (lambda: EfficientNetLite("lite0", out_indices=(0, 1, 2, 3)), 32),
    "EfficientNet-Lite4": (lambda: EfficientNetLite("lite4"), 60),
    "blocks of one width": (lambda: EfficientNetLite((0.01, 1.0), out_indices=(0, 1, 2, 3)), 32),
    "EfficientNet-Lite without ReLU6": (
        lambda: rectified_by(EfficientNetLite(), nn.ReLU(), ".*"),
        32,
    ),
    "EfficientNet-Lite, another norm": (
        lambda: EfficientNetLite(norm_cfg={"type": "GN", "num_groups": 1}),
        0,
    ),
}


def rectified_by(network, relu, pattern):
    for name, module in list(network.named_modules()):
        if re.fullmatch(pattern, name) and isinstance(getattr(module, "relu", None), nn.Module):
            module.relu = copy.deepcopy(relu)
    return network


PLUGINS = [
    dict(
        cfg=dict(type="ContextBlock", ratio=0.25),
        stages=(False, True, True, False),
        position="after_conv2",
    )
]


def network(name):
    """Returns a network in evaluation mode, with norms that change something."""
    torch.manual_seed(0)
    built = NETWORKS[name][0]()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    built.eval()
    fold_batch_norms(built)
    return built.requires_grad_(False)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_stages_are_what_they_were(name):
    plain = network(name)
    fused = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert fuse_rectifiers(fused) == NETWORKS[name][1]
    for size in ((64, 64), (33, 70)):
        x = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
        for expected, found in zip(plain(x), fused(x), strict=True):
            torch.testing.assert_close(found / expected.std(), expected / expected.std())


def test_the_input_of_a_stage_is_not_overwritten():
    fused = network("basic blocks")
    fuse_rectifiers(fused)
    x = torch.randn(1, 64, 8, 8)
    before = x.clone()
    assert fused.layer1[0].downsample is None
    fused.layer1(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("act", ["ReLU", "ReLU6", "LeakyReLU"])
def test_a_conv_module_rectifies_when_asked(act):
    plain = ConvModule(4, 6, 3, padding=1, act_cfg={"type": act}).requires_grad_(False)
    plain.conv.weight *= 20  # beyond 6
    fused = copy.deepcopy(plain)
    assert fuse_rectifiers(nn.Sequential(fused)) == 1
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(fused(x), plain(x))
    torch.testing.assert_close(fused(x, activate=False), plain(x, activate=False))
    assert plain(x, activate=False).min() < 0


@pytest.mark.parametrize(
    "settings",
    [
        dict(act_cfg=None),
        dict(act_cfg=dict(type="ELU")),
        dict(order=("act", "conv", "norm")),
        dict(norm_cfg=dict(type="GN", num_groups=2)),
        dict(padding_mode="reflect"),
        dict(with_spectral_norm=True),
    ],
)
def test_other_conv_modules_keep_what_they_do(settings):
    plain = ConvModule(4, 6, 3, padding=1, **settings).eval().requires_grad_(False)
    fused = copy.deepcopy(plain)
    count = fuse_rectifiers(fused)
    assert count == ("with_spectral_norm" in settings)  # made before the convolution
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(fused(x), plain(x))


@pytest.mark.parametrize("settings", [dict(padding_mode="circular"), dict(padding="same")])
def test_other_paddings_are_left_to_torch(settings):
    plain = nn.Conv2d(4, 6, 3, **{"padding": 1, **settings}).requires_grad_(False)
    fused = nn.Sequential(copy.deepcopy(plain))
    assert fuse_rectifiers(fused) == 0
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(fused(x), plain(x))


def test_nothing_is_done_on_another_device():
    with torch.device("meta"):
        elsewhere = ConvModule(4, 6, 3)
    assert fuse_rectifiers(elsewhere) == 0
    assert type(elsewhere) is ConvModule
    assert type(elsewhere.conv) is nn.Conv2d
