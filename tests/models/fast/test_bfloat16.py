import copy

import pytest
import torch
from torch import nn

from fldet.config.train_step import wrapper_name
from fldet.models.fast.bfloat16 import avoid_single_columns


def leave_nan_in_freed_memory():
    for size in (64, 1000, 5000, 20_000, 100_000):
        torch.full((size,), float("nan")), torch.full((size,), float("nan"), dtype=torch.bfloat16)


@pytest.mark.parametrize("height", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 2])
def test_strided_convolution_on_a_narrow_map(height, width):
    """Without the hook most of these gradients hold what was in the memory before."""
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 3, stride=2, padding=1)
    hooked = copy.deepcopy(plain)
    avoid_single_columns(hooked)
    image = torch.randn(2, 8, height, width)
    plain(image).sum().backward()
    for _ in range(10):
        hooked.zero_grad()
        leave_nan_in_freed_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = hooked(image)
        output.float().sum().backward()
        torch.testing.assert_close(output.float(), plain(image), rtol=0.05, atol=0.05)
        torch.testing.assert_close(hooked.weight.grad, plain.weight.grad, rtol=0.05, atol=0.05)


def test_names_of_weights_stay():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3))
    before = list(model.state_dict())
    avoid_single_columns(model)
    assert list(model.state_dict()) == before


def test_bfloat16_needs_no_loss_scaling_on_a_cpu():
    assert wrapper_name(torch.device("cpu")) == "fldet.Bfloat16OptimWrapper"
