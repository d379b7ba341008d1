import math

import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator as MMDetAnchorGenerator

from fldet.models.task_modules import AnchorGenerator


def test_nine_anchors_of_p3_by_hand():
    """Areas (32 x 2^(k/3))^2 in ratios height : width of 1/2, 1 and 2, centred on the origin."""
    anchors = AnchorGenerator().base_anchors[0]
    expected = []
    for ratio in (0.5, 1.0, 2.0):
        for k in range(3):
            side = 32 * 2 ** (k / 3)
            width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
            expected.append([-width / 2, -height / 2, width / 2, height / 2])
    torch.testing.assert_close(anchors, torch.tensor(expected))


def test_sizes_span_32_to_813_pixels():
    anchors = torch.cat(AnchorGenerator().base_anchors)
    sides = ((anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])).sqrt()
    assert sides.min().item() == pytest.approx(32, rel=1e-6)
    assert sides.max().item() == pytest.approx(813, abs=0.5)


def test_equals_mmdet_bit_for_bit():
    theirs = MMDetAnchorGenerator(
        octave_base_scale=4,
        scales_per_octave=3,
        ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
    )
    sizes = [(10, 13), (5, 7), (3, 4), (2, 2), (1, 1)]
    ours = AnchorGenerator().grid_priors(sizes, device="cpu")
    for mine, other in zip(ours, theirs.grid_priors(sizes, device="cpu"), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("num_scales", "ratios"),
    [(1, [1.0]), (2, [1.0]), (1, [0.5, 1.0, 2.0]), (4, [0.5, 1.0, 2.0])],
)
def test_number_of_anchors_is_scales_times_ratios(num_scales, ratios):
    generator = AnchorGenerator(num_scales=num_scales, ratios=ratios)
    assert generator.num_base_priors == [num_scales * len(ratios)] * 5


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="one size for each of 5 strides, got 2 sizes"):
        AnchorGenerator(sizes=(32, 64))
    with pytest.raises(ValueError, match="must be positive"):
        AnchorGenerator(ratios=(0.0, 1.0))
