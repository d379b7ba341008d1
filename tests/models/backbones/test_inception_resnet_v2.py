"""Inception-ResNet-v2 against timm's network, the paper's count, and its own other stride."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fldet.models.backbones.inception_resnet_v2 import InceptionResNetV2, MaxPool, StridedConv
from fldet.models.roi_heads.inception_shared_head import InceptionResNetV2SharedHead

SMALL = {"repeats": (1, 2), "width": 0.125}


def numbers(module):
    return sum(value.numel() for value in module.parameters())


def with_statistics(module, seed=0):
    """Random weights, and statistics that make batch norms do something."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, generator=generator)
        if isinstance(part, nn.BatchNorm2d):
            for value, low in (
                (part.weight, 0.5),
                (part.running_var, 0.5),
                (part.running_mean, -0.5),
            ):
                value.data.copy_(torch.rand(value.shape, generator=generator) + low)
    return module.eval()


# --- the network of the paper ---


def test_parameters_are_the_papers():
    """arXiv 1611.10012, Table 2: 54,336,736, without scales of norms and with their statistics."""
    with torch.device("meta"):
        halves = [InceptionResNetV2(), InceptionResNetV2SharedHead()]
    assert [numbers(half) for half in halves] == [26_873_312, 27_433_152]
    norms = [m for half in halves for m in half.modules() if isinstance(m, nn.BatchNorm2d)]
    channels = sum(norm.num_features for norm in norms)
    assert channels == 30_272
    assert sum(map(numbers, halves)) - channels + 2 * channels == 54_336_736
    assert {norm.eps for norm in norms} == {0.001}
    assert halves[0].out_channels == (1088,)
    assert halves[1].out_channels == 1536


@pytest.fixture(scope="module")
def peer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = pytest.importorskip("timm", exc_type=ImportError)
        return with_statistics(timm.create_model("inception_resnet_v2", pretrained=False))


def test_a_classifiers_weights_load_by_name_and_give_timms_maps(peer):
    first, second = InceptionResNetV2(padding="valid"), InceptionResNetV2SharedHead()
    unused = set(peer.state_dict())
    for half in (first, second):
        missing, unexpected = half.load_state_dict(peer.state_dict(), strict=False)
        assert not missing
        unused &= set(unexpected)
        half.eval()
    assert unused == {"classif.weight", "classif.bias"}
    image = torch.randn(1, 3, 299, 299, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (middle,) = first(image)
        found, expected = second(middle), peer.forward_features(image)
    assert middle.shape == (1, 1088, 17, 17)
    assert found.shape == expected.shape == (1, 1536, 8, 8)
    assert 0.1 < (expected > 0).float().mean() < 0.9
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


# --- strides and borders ---


@pytest.mark.parametrize(("height", "width"), [(97, 65), (64, 96), (66, 35)])
def test_stride_8_at_every_second_pixel_is_stride_16(height, width):
    """Dilation stands in for the stride; on an even map TensorFlow's border begins one later."""
    fine = with_statistics(InceptionResNetV2(stride=8, out_indices=(0, 1), **SMALL))
    coarse = InceptionResNetV2(stride=16, **SMALL).eval()
    coarse.load_state_dict(fine.state_dict())
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        (block35, map8), (map16,) = fine(image), coarse(image)
    sides = [-(-side // 8) for side in (height, width)]
    assert block35.shape[2:] == map8.shape[2:] == torch.Size(sides)
    assert map16.shape[2:] == torch.Size([-(-side // 2) for side in sides])
    first = [1 - side % 2 for side in sides]
    torch.testing.assert_close(map8[..., first[0] :: 2, first[1] :: 2], map16, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 5, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_is_tensorflows(side, stride):
    """Output i is of the pixels from i * stride - before, before = total // 2."""
    image = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    count = -(-side // stride)
    total = max((count - 1) * stride + 3 - side, 0)
    expected = np.empty((2, count, count), np.float32)
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    for y in range(count):
        for x in range(count):
            pixels = {
                (j, i): image[y * stride + j - total // 2, x * stride + i - total // 2]
                for j in range(3)
                for i in range(3)
                if 0 <= y * stride + j - total // 2 < side
                and 0 <= x * stride + i - total // 2 < side
            }
            expected[0, y, x] = max(pixels.values())
            expected[1, y, x] = sum(kernel[place] * value for place, value in pixels.items())
    given = torch.from_numpy(image)[None, None]
    conv = StridedConv(1, 1, 3, stride=stride, act_cfg=None, bias=False)
    conv.conv.weight.data.copy_(torch.from_numpy(kernel))
    found = torch.cat([MaxPool(stride, same=True)(given), conv(given)], 1)[0]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_a_block_is_what_the_paper_draws():
    """Block17 (Fig. 17) with torch's functions: 1x1 beside 1x1, 1x7, 7x1; 1x1 linear, 0.1, ReLU."""
    block = with_statistics(InceptionResNetV2(**SMALL)).repeat_1[0]
    x = torch.randn(1, 136, 5, 6).relu()

    def layer(name, value, border=(0, 0)):
        conv, norm = block.get_submodule(name).conv, block.get_submodule(name).bn
        value = F.conv2d(value, conv.weight, padding=border)
        return F.batch_norm(
            value, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=0.001
        ).relu()

    inner = layer("branch1.1", layer("branch1.0", x), (0, 3))
    joined = torch.cat([layer("branch0", x), layer("branch1.2", inner, (3, 0))], 1)
    expected = (x + 0.1 * F.conv2d(joined, block.conv2d.weight, block.conv2d.bias)).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


# --- options ---


def test_fixed_norms_stay_so_in_training():
    norm_cfg = {"type": "BN", "eps": 0.001, "requires_grad": False}
    for half in (
        InceptionResNetV2(norm_cfg=norm_cfg, **SMALL),
        InceptionResNetV2SharedHead(norm_cfg=norm_cfg, repeats=1, width=0.125),
    ):
        norms = [m for m in half.train().modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert half.training
        assert not any(m.training or m.weight.requires_grad or m.bias.requires_grad for m in norms)
    learning = InceptionResNetV2(norm_eval=False, **SMALL).train()
    assert all(m.training for m in learning.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_narrow_second_half_takes_the_narrow_first_ones_maps_or_others():
    first = InceptionResNetV2(**SMALL)
    second = InceptionResNetV2SharedHead(repeats=1, width=0.125)
    assert first.out_channels == (136,)
    assert second(torch.randn(2, 136, 17, 9)).shape == (2, 192, 8, 4)
    assert second(torch.randn(0, 136, 17, 17)).shape == (0, 192, 8, 8)
    other = InceptionResNetV2SharedHead(24, repeats=1, width=0.125)
    assert other(torch.randn(1, 24, 17, 17)).shape == (1, 192, 8, 8)
    assert numbers(other) - numbers(second) == 24 * 136 + 136


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 32}, "8 or 16, got 32"),
        ({"padding": "full"}, "'same' or 'valid', got 'full'"),
        ({"width": 0.0}, "width must be positive"),
        ({"out_indices": ()}, "of 0 and 1"),
        ({"out_indices": (1, 2)}, "of 0 and 1"),
    ],
)
def test_refuses_what_cannot_be_built(options, words):
    with pytest.raises(ValueError, match=words):
        InceptionResNetV2(**options)
