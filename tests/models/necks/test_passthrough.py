"""The passthrough layer against darknet's loop, and the whole network against darknet's counts."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fldet.models.backbones.darknet19 import DarkNet19
from fldet.models.necks.passthrough import PassthroughNeck, reorg


def reorg_loop(x):
    """``reorg_cpu`` of darknet's blas.c, stride 2, backwards, on one image (C, H, W)."""
    channels, height, width = x.shape
    given, out = x.reshape(-1), np.empty(x.size, x.dtype)
    small = channels // 4
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                place = i + width * (j + height * k)
                offset = k // small
                column, row = i * 2 + offset % 2, j * 2 + offset // 2
                out[place] = given[column + width * 2 * (row + height * 2 * (k % small))]
    return out.reshape(channels * 4, height // 2, width // 2)


@pytest.mark.parametrize("shape", [(4, 2, 2), (8, 4, 6), (64, 6, 2)])
def test_reorg_is_darknets_and_not_pixel_unshuffle(shape):
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    ours = reorg(torch.from_numpy(x))
    assert ours.numpy().tolist() == [reorg_loop(image).tolist() for image in x]
    if shape[0] > 4:
        assert not ours.equal(nn.functional.pixel_unshuffle(torch.from_numpy(x), 2))


@pytest.mark.parametrize(("side", "gflop"), [(608, 62.94), (544, 50.39), (416, 29.46)])
def test_parameters_and_operations_of_the_network_are_darknets(side, gflop):
    """darknet prints 62.94 BFLOP for yolov2.cfg at 608."""
    with torch.device("meta"):
        backbone, neck, last = DarkNet19(), PassthroughNeck(), nn.Conv2d(1024, 425, 1)
    counter = FlopCounterMode(display=False)
    with counter:
        (joined,) = neck(backbone(torch.empty(1, 3, side, side, device="meta")))
        maps = last(joined)
    assert maps.shape == (1, 425, side // 32, side // 32)
    parts = nn.ModuleList([backbone, neck, last])
    assert sum(p.numel() for p in parts.parameters()) == 50_962_889
    assert round(counter.get_total_flops() / 1e9, 2) == gflop


def test_the_fine_map_comes_first():
    neck = PassthroughNeck((8, 16), out_channels=12, passthrough_channels=4).eval()
    fine, coarse = torch.randn(2, 8, 6, 4), torch.randn(2, 16, 3, 2)
    (out,) = neck((fine, coarse))
    joined = torch.cat([reorg(neck.passthrough(fine)), neck.deep(coarse)], dim=1)
    assert joined.shape == (2, 16 + 12, 3, 2)
    assert out.equal(neck.fuse(joined))
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        PassthroughNeck(passthrough_channels=6)
