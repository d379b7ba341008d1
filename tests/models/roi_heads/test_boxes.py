"""Box voting and the choice of scales, against loops in NumPy."""

import numpy as np
import pytest
import torch

from fldet.models.roi_heads.boxes import lower_scales, vote


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def vote_by_hand(boxes, candidates, scores, threshold):
    moved = np.empty_like(boxes)
    for d, box in enumerate(boxes):
        total, mean = 0.0, np.zeros(4)
        for r in range(len(candidates)):
            if iou(box, candidates[r, d]) >= threshold:
                total += scores[r, d]
                mean += scores[r, d] * candidates[r, d]
        moved[d] = mean / total if total else box
    return moved


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_votes_are_those_of_a_loop(threshold):
    random = np.random.default_rng(0)
    corners = random.uniform(0, 50, (6, 2))
    boxes = np.concatenate([corners, corners + random.uniform(20, 60, (6, 2))], axis=1)
    candidates = boxes[None] + random.normal(0, 4, (40, 6, 4))
    scores = random.uniform(0, 1, (40, 6))
    expected = vote_by_hand(boxes, candidates, scores, threshold)
    assert (np.abs(expected - boxes).max(axis=1) > 0.01).any()
    found = vote(*map(torch.tensor, (boxes, candidates, scores)), threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_box_without_votes_stays_as_it_is():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]])  # one without area
    far = torch.tensor([[[20.0, 20, 30, 30], [20, 20, 30, 30]]])
    assert torch.equal(vote(boxes, far, torch.ones(1, 2), 0.5), boxes)
    assert torch.equal(vote(boxes, boxes[None], torch.zeros(1, 2), 0.5), boxes)
    assert vote(boxes[:0], far[:, :0], torch.ones(1, 0), 0.5).shape == (0, 4)
    assert vote(boxes[:0], far[:0, :0], torch.ones(0, 0), 0.5).shape == (0, 4)


def lower_by_hand(side, factors, target):
    """The pair of neighbours between which the target lies; the first or the last beyond them."""
    for index in range(len(factors) - 1):
        if side * factors[index] <= target < side * factors[index + 1]:
            return index
    return 0 if side * factors[0] > target else len(factors) - 2


@pytest.mark.parametrize("scales", [[200, 400, 600, 800, 1000], [600, 1200], [600, 600]])
def test_scales_are_those_on_both_sides_of_224_pixels(scales):
    factors = [scale / 600 for scale in scales]
    sides = np.array([0.0, 1, 30, 134, 134.5, 150, 168, 169, 224, 225, 335, 337, 500, 672, 700])
    rois = np.stack([0 * sides, 7 + 0 * sides, 0 * sides, 7 + 2 * sides, sides / 2], axis=1)
    expected = [lower_by_hand(side, factors, 224.0) for side in sides]
    found = lower_scales(torch.tensor(rois), factors, 224.0)
    assert found.tolist() == expected
    if len(scales) == 5:
        assert set(expected) == {0, 1, 2, 3}
