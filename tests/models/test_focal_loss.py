import pytest
import torch

from fldet.functional import sigmoid_focal_loss
from fldet.models.losses.focal_loss import FocalLoss, one_hot_targets


def logits(n=6, k=3):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(0))


def test_sum_over_all_anchors_and_classes_over_avg_factor():
    x, labels = logits(), torch.tensor([0, 3, 2, 3, 3, 1])
    targets = torch.zeros(6, 3)
    targets[[0, 2, 5], [0, 2, 1]] = 1
    expected = sigmoid_focal_loss(x, targets).sum() / 3
    torch.testing.assert_close(FocalLoss()(x, labels, avg_factor=3), expected)


def test_weight_zero_ignores_an_anchor():
    x, labels = logits(), torch.tensor([0, 3, 2, 3, 3, 1])
    weight = torch.tensor([1.0, 1, 1, 0, 1, 1])
    kept = [0, 1, 2, 4, 5]
    torch.testing.assert_close(FocalLoss()(x, labels, weight), FocalLoss()(x[kept], labels[kept]))


@pytest.mark.parametrize(
    ("n", "k", "label", "weight"),
    [
        (5, 3, 3, 1.0),  # no box at all
        (5, 1, 0, 1.0),  # one class
        (1, 3, 2, 1.0),  # one anchor
        (5, 3, 0, 0.0),  # all ignored
        (0, 3, 0, 1.0),  # no anchor
    ],
)
def test_edge_cases_are_finite_and_have_a_gradient(n, k, label, weight):
    x = logits(n, k).requires_grad_()
    loss = FocalLoss()(x, torch.full((n,), label), torch.full((n,), weight))
    loss.backward()
    assert torch.isfinite(loss)
    assert (loss == 0) == (weight == 0 or n == 0)
    assert x.grad.shape == x.shape


def test_loss_weight_scales():
    x, labels = logits(), torch.tensor([0, 3, 2, 3, 3, 1])
    torch.testing.assert_close(FocalLoss(loss_weight=2.0)(x, labels), 2 * FocalLoss()(x, labels))


def test_softmax_is_refused():
    with pytest.raises(ValueError, match="needs use_sigmoid=True, got False"):
        FocalLoss(use_sigmoid=False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 4]), r"must be in 0..3 \(3 is background\), got 0..4"),
        (torch.tensor([-1, 0]), r"got -1..0"),
        (torch.tensor([0]), r"shape \(2,\), got \(1,\)"),
    ],
)
def test_wrong_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        one_hot_targets(labels, torch.zeros(2, 3))
