import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn

from fldet.config.train_step import wrapper_name
from fldet.models.backbones.efficientnet_lite import HalvingConv2d
from fldet.models.fast.bfloat16 import avoid_narrow_maps
from fldet.models.fast.train_step import avoid_faults_of_cpus


def leave_nan_in_freed_memory():
    for size in (64, 1000, 5000, 20_000, 100_000):
        torch.full((size,), float("nan")), torch.full((size,), float("nan"), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(8, 8, 3, stride=2, padding=1),  # P7
        lambda: nn.Conv2d(16, 16, 7, stride=2, padding=3, bias=False),
        lambda: nn.Conv2d(16, 16, 4, stride=2, padding=2),
        lambda: nn.Conv2d(16, 16, (3, 5), stride=3, padding=(1, 4)),
        lambda: nn.Conv2d(16, 16, (5, 3), stride=(1, 2), padding=(2, 1)),
        lambda: nn.Conv2d(16, 16, 3, stride=2, padding=2, dilation=2),
        lambda: nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=4),
        lambda: nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        lambda: nn.Conv2d(16, 16, 5, stride=2, padding=2, groups=16),
        lambda: nn.Conv2d(16, 16, 3, stride=4, padding=1),
        lambda: nn.Conv2d(8, 8, 3, stride=4, padding=1, groups=8),
        lambda: nn.Conv2d(16, 16, 2, stride=(1, 3), padding=1, groups=16),
        lambda: nn.Conv2d(3, 3, (2, 9), stride=1, padding=(1, 5), groups=3),
        lambda: HalvingConv2d(16, 16, 3, groups=16, bias=False),
        lambda: HalvingConv2d(16, 16, 5, groups=16),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_gradients_on_a_narrow_map(make, layout, width):
    """Without the guard many of these gradients hold what was in the memory before."""
    torch.manual_seed(0)
    plain = make().to(memory_format=layout)
    guarded = copy.deepcopy(plain)
    lines = {"optim_wrapper": {"type": "fldet.Bfloat16OptimWrapper"}, "channels_last": True}
    avoid_faults_of_cpus(guarded, Config(lines))
    for height in (1, 2, 5):
        image = torch.randn(2, plain.in_channels, height, width).contiguous(memory_format=layout)
        reach = plain.dilation[0] * (plain.kernel_size[0] - 1) + 1
        if height + 2 * plain.padding[0] < reach:
            continue
        plain.zero_grad()
        plain(image).sum().backward()
        for _ in range(5):
            guarded.zero_grad()
            leave_nan_in_freed_memory()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = guarded(image)
                output.float().sum().backward()
            assert output.dtype == torch.bfloat16
            close = {"rtol": 0.05, "atol": 0.05}
            torch.testing.assert_close(output.float(), plain(image), **close)
            torch.testing.assert_close(guarded.weight.grad, plain.weight.grad, **close)


def test_names_of_weights_stay():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3))
    before = list(model.state_dict())
    avoid_narrow_maps(model)
    assert list(model.state_dict()) == before
    assert type(model[1]) is nn.Conv2d


def test_bfloat16_needs_no_loss_scaling_on_a_cpu():
    assert wrapper_name(torch.device("cpu")) == "fldet.Bfloat16OptimWrapper"
