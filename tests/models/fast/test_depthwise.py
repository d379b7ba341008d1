"""The quicker gradients of depthwise convolutions."""

import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

from fldet.models.backbones.efficientnet_lite import EfficientNetLite
from fldet.models.fast.depthwise import (
    DepthwiseConv2d,
    _cuts,
    is_slow_depthwise,
    weight_gradient,
    with_quick_gradient,
)
from fldet.models.fast.methods import replace_method
from fldet.models.fast.train_step import avoid_faults_of_cpus

LAST = torch.channels_last


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def torchs_gradients(x, weight, stride, padding, bias=None):
    """Returns the gradients of map, weight and bias, and that of the result, by autograd."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    bias = None if bias is None else bias.clone().requires_grad_()
    result = F.conv2d(x, weight, bias, stride, padding, groups=len(weight))
    grad = maps(*result.shape, seed=3).to(x.dtype)
    result.backward(grad)
    return grad, x.grad, weight.grad, None if bias is None else bias.grad


@pytest.mark.parametrize(
    "kernel", [(1, 4), (3, 4), (5, 5), (4, 6), (6, 6), (7, 7), (3, 11)], ids=str
)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 3), (1, 2)], ids=str)
@pytest.mark.parametrize("size", [(11, 11), (12, 8), (9, 13), (7, 4)], ids=str)
@pytest.mark.parametrize("border", ["none", "half", "wide"])
def test_the_gradient_is_that_of_torch(kernel, stride, size, border):
    padding = {"none": (0, 0), "half": (kernel[0] // 2, kernel[1] // 2), "wide": kernel}[border]
    if any(side + 2 * pad < k for side, pad, k in zip(size, padding, kernel, strict=True)):
        pytest.skip("the map is smaller than the kernel")
    x, weight = maps(2, 3, *size), maps(3, 1, *kernel, seed=1)
    grad, _, expected, _ = torchs_gradients(x, weight, stride, padding)
    torch.testing.assert_close(weight_gradient(grad, x, weight, stride, padding), expected)


@pytest.mark.parametrize(
    ("size", "columns", "stride", "padding", "copied"),
    [
        *[(64, 5, 1, 2, 2), (63, 5, 1, 2, 2), (128, 6, 2, 2, 2), (127, 5, 2, 2, 2)],
        *[(16, 7, 1, 3, 2), (64, 4, 2, 1, 2), (63, 3, 2, 1, 0)],
    ],
)
def test_onednns_kernel_takes_all_columns_of_the_light_model(
    size, columns, stride, padding, copied
):
    results = (size + 2 * padding - columns) // stride + 1
    cuts = _cuts(size, results, columns, stride, padding)
    taken = [column for cut in cuts for column in range(cut.first, cut.first + cut.columns)]
    assert taken == list(range(columns))
    assert all(cut.columns <= 3 and cut.border <= cut.columns // 2 for cut in cuts)
    assert sum(any(cut.pad) for cut in cuts) == copied


@pytest.mark.parametrize(("size", "columns", "padding"), [(128, 6, 2), (64, 4, 1), (12, 6, 3)])
def test_no_column_is_taken_alone_where_a_stride_makes_that_slow(size, columns, padding):
    cuts = _cuts(size, (size + 2 * padding - columns) // 2 + 1, columns, 2, padding)
    assert all(cut.columns > 1 for cut in cuts)


def test_a_border_that_no_cut_has_is_left_to_torch():
    assert _cuts(5, 5, 5, 3, 5) is None


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("with_bias", [False, True])
def test_map_weight_and_bias_have_their_gradients(stride, with_bias):
    x, weight = maps(2, 4, 10, 9), maps(4, 1, 5, 5, seed=1)
    bias = maps(4, seed=2) if with_bias else None
    grad, *expected = torchs_gradients(x, weight, stride, (2, 2), bias)
    leaves = [x.clone(), weight.clone(), None if bias is None else bias.clone()]
    for leaf in leaves[: 2 + with_bias]:
        leaf.requires_grad_()
    DepthwiseConv2d.apply(*leaves, (stride, stride), (2, 2)).backward(grad)
    for leaf, value in zip(leaves[: 2 + with_bias], expected, strict=False):
        torch.testing.assert_close(leaf.grad, value)


@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [16, 17])
def test_gradients_in_bfloat16_are_those_of_float32_rounded(kernel, stride, size):
    given = maps(2, 16, size, size), maps(16, 1, kernel, kernel, seed=1), maps(16, seed=2)
    x, weight, bias = (value.bfloat16() for value in given)
    x = x.contiguous(memory_format=LAST)
    padding = (kernel // 2, kernel // 2)
    # what is to come out: of the rounded numbers, by torch in float32
    exact = torchs_gradients(x.float(), weight.float(), (stride, stride), padding, bias.float())
    grad = exact[0].bfloat16()
    leaves = [value.clone().requires_grad_() for value in (x, weight, bias)]
    DepthwiseConv2d.apply(*leaves, (stride, stride), padding).backward(grad)
    for leaf, expected in zip(leaves, exact[1:], strict=True):
        assert leaf.grad.dtype == torch.bfloat16
        error = (leaf.grad.float() - expected).abs().max() / expected.abs().max()
        assert error < 2**-7  # two roundings: of the result's gradient and of this one


def test_a_frozen_weight_has_none_and_a_second_derivative_is_refused():
    x, weight = maps(1, 2, 6, 6).requires_grad_(), maps(2, 1, 5, 5, seed=1)
    result = DepthwiseConv2d.apply(x, weight, None, (1, 1), (2, 2))
    (first,) = torch.autograd.grad(result.square().sum(), x, create_graph=True)
    assert weight.grad is None
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def depthwise(**changes):
    options = {"kernel_size": 5, "padding": 2, "groups": 4} | changes
    return nn.Conv2d(4, options.pop("out_channels", 4), **options)


@pytest.mark.parametrize(
    "module",
    [
        depthwise(kernel_size=3),
        depthwise(kernel_size=(5, 3)),
        depthwise(kernel_size=3, stride=2, dilation=2),
        depthwise(groups=1),
        depthwise(groups=2),
        depthwise(out_channels=8),
        depthwise(dilation=2),
        depthwise(padding_mode="reflect"),
        depthwise(padding="same"),
        nn.Conv2d(1, 1, 5),
        nn.Conv1d(4, 4, 5, groups=4),
        nn.BatchNorm2d(4),
    ],
    ids=str,
)
def test_other_modules_are_left_alone(module):
    assert is_slow_depthwise(depthwise())
    assert is_slow_depthwise(depthwise(kernel_size=3, stride=2))
    assert not is_slow_depthwise(module)


def is_quick(result):
    return type(result.grad_fn).__name__ == "DepthwiseConv2dBackward"


def test_it_is_used_in_training_on_maps_in_channels_last():
    conv, x = depthwise().to(memory_format=LAST), maps(2, 4, 8, 8).float()
    replace_method(conv, "_conv_forward", with_quick_gradient)
    last = x.contiguous(memory_format=LAST)
    assert is_quick(conv(last))
    assert is_quick(copy.deepcopy(conv)(last))
    assert not is_quick(conv(x))
    assert is_quick(conv(last[..., :5].contiguous(memory_format=LAST)))
    assert not is_quick(conv(last[..., :4].contiguous(memory_format=LAST)))  # narrower than it
    with torch.no_grad():
        assert conv(last).grad_fn is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = conv(last)
        assert is_quick(result)
        assert result.dtype == torch.bfloat16
        assert is_quick(conv(last.bfloat16()))
        result.sum().backward()
    assert conv.weight.grad.dtype == conv.bias.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.float16):
        assert not is_quick(conv(last))
    assert not is_quick(copy.deepcopy(conv).double()(last.double()))
    conv.weight.requires_grad_(False)
    assert not is_quick(conv(last.requires_grad_()))


@pytest.mark.parametrize("size", [(64, 64), (65, 96), (70, 67)], ids=str)
def test_gradients_of_the_backbone_of_the_light_model(size):
    torch.manual_seed(0)
    model = EfficientNetLite("lite0", out_indices=(1, 2, 3), frozen_stages=1, norm_eval=True)
    model = model.train().to(memory_format=LAST)
    quick = copy.deepcopy(model)
    slow = [module for module in quick.modules() if is_slow_depthwise(module)]
    assert len(slow) == 11  # nine of 5 x 5, two of 3 x 3 and a stride
    for module in slow:
        replace_method(module, "_conv_forward", with_quick_gradient)
    assert list(quick.state_dict()) == list(model.state_dict())
    images = maps(2, 3, *size).float().contiguous(memory_format=LAST)
    for one in (model, quick):
        sum(level.square().mean() for level in one(images)).backward()
    gradients = dict(quick.named_parameters())
    for name, value in model.named_parameters():
        if value.grad is None:
            assert gradients[name].grad is None
        else:
            scale = value.grad.abs().max()
            torch.testing.assert_close(
                *(gradients[name].grad / scale, value.grad / scale), rtol=0, atol=1e-4
            )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"channels_last": True}, True),
        ({"channels_last": True, "compile": {"sizes": 64}}, False),
        ({}, False),
    ],
)
def test_a_training_has_it_with_channels_last(lines, expected):
    model = nn.Sequential(depthwise().to(memory_format=LAST))
    avoid_faults_of_cpus(model, Config({"optim_wrapper": {"type": "OptimWrapper"}, **lines}))
    assert is_quick(model(maps(2, 4, 8, 8).float().contiguous(memory_format=LAST))) == expected
