import math

import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator as MMDetAnchorGenerator

from fldet.config.load import load_config
from fldet.models.task_modules import AnchorGenerator
from fldet.registry import TASK_UTILS


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


# Table 1c by hand: (width, height) of the anchors of P3 in pixels. Sides of the squares are
# 32 * 2^(k/n); a ratio of 1/2 is sqrt(2) times as wide and 1/sqrt(2) as high, a ratio of 2 turned.
SQUARE = (32.00, 32.00)
TABLE_1C = {
    "1x1": [SQUARE],
    "2x1": [SQUARE, (45.25, 45.25)],
    "3x1": [SQUARE, (40.32, 40.32), (50.80, 50.80)],
    "1x3": [(45.25, 22.63), SQUARE, (22.63, 45.25)],
    "2x3": [
        *[(45.25, 22.63), (64.00, 32.00)],
        *[SQUARE, (45.25, 45.25)],
        *[(22.63, 45.25), (32.00, 64.00)],
    ],
    "3x3": [
        *[(45.25, 22.63), (57.02, 28.51), (71.84, 35.92)],
        *[SQUARE, (40.32, 40.32), (50.80, 50.80)],
        *[(22.63, 45.25), (28.51, 57.02), (35.92, 71.84)],
    ],
    "4x3": [
        *[(45.25, 22.63), (53.82, 26.91), (64.00, 32.00), (76.11, 38.05)],
        *[SQUARE, (38.05, 38.05), (45.25, 45.25), (53.82, 53.82)],
        *[(22.63, 45.25), (26.91, 53.82), (32.00, 64.00), (38.05, 76.11)],
    ],
}


@pytest.mark.parametrize(("row", "expected"), TABLE_1C.items())
def test_rows_of_table_1c_by_hand(row, expected):
    config = load_config(f"paper/table1c/anchors_{row}.py").model.bbox_head.anchor_generator
    generator = TASK_UTILS.build(config)
    for level, anchors in enumerate(generator.base_anchors):
        wide_high = torch.tensor(expected) * 2**level
        torch.testing.assert_close(
            anchors[:, 2:] - anchors[:, :2], wide_high, atol=0.006 * 2**level, rtol=0
        )
        torch.testing.assert_close(anchors[:, 2:], -anchors[:, :2])  # centred on the location
    assert generator.num_base_priors == [len(expected)] * 5


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="one size for each of 5 strides, got 2 sizes"):
        AnchorGenerator(sizes=(32, 64))
    with pytest.raises(ValueError, match="must be positive"):
        AnchorGenerator(ratios=(0.0, 1.0))
