import numpy as np
import pytest
import torch

from fldet.models.task_modules.default_boxes import DefaultBoxes

SSD513 = {
    "strides": [8, 16, 32, 64, 128, 256, 513],
    "min_sizes": [20, 51, 138, 225, 312, 400, 487],
    "max_sizes": [51, 138, 225, 312, 400, 487, 574],
    "ratios": [[1.6, 2, 3]] * 7,
    "centers": [2.5, 2.5, 10.5, 26.5, 58.5, 122.5, 256.5],
}
MAPS = [64, 32, 16, 8, 4, 2, 1]


def prior_box(side, step, start, min_size, max_size, ratios):
    """The authors' layer, loop by loop: flips of each ratio, no clipping; corners in pixels."""
    shapes = [1.0]
    for ratio in ratios:
        shapes += [ratio, 1 / ratio]
    boxes = []
    for h in range(side):
        for w in range(side):
            x, y = start + w * step, start + h * step
            sizes = [(min_size, min_size), (np.sqrt(min_size * max_size),) * 2]
            for ratio in shapes:
                if abs(ratio - 1) > 1e-6:
                    sizes.append((min_size * np.sqrt(ratio), min_size / np.sqrt(ratio)))
            boxes += [
                (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                for width, height in sizes
            ]
    return boxes


def test_the_boxes_of_ssd513_against_a_literal_prior_box():
    found = DefaultBoxes(**SSD513).grid_priors([(side, side) for side in MAPS], device="cpu")
    expected = [
        prior_box(side, *values)
        for side, *values in zip(
            *(MAPS, SSD513["strides"], SSD513["centers"]),
            *(SSD513["min_sizes"], SSD513["max_sizes"], SSD513["ratios"]),
            strict=True,
        )
    ]
    assert sum(map(len, found)) == 43_688
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-3)


def test_centres_in_the_middle_of_cells_by_default():
    boxes = DefaultBoxes(strides=[10], min_sizes=[4], max_sizes=[9], ratios=[[2]])
    assert boxes.num_base_priors == [4]
    (found,) = boxes.grid_priors([(1, 2)], device="cpu")
    assert found[[0, 1, 4]].tolist() == [[3, 3, 7, 7], [2, 2, 8, 8], [13, 3, 17, 7]]
    assert (found[2, 2] - found[2, 0]) / (found[2, 3] - found[2, 1]) == torch.tensor(2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_sizes": [20.52]}, "whole numbers of pixels"),
        ({"min_sizes": [60]}, "0 < min < max"),
        ({"ratios": [[2], [2]]}, "2 ratios"),
        ({"centers": []}, "0 centers"),
    ],
)
def test_what_cannot_be(change, message):
    options = {"strides": [8], "min_sizes": [20], "max_sizes": [51], "ratios": [[2]]}
    with pytest.raises(ValueError, match=message):
        DefaultBoxes(**{**options, **change})
