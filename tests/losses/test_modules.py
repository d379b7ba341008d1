"""The modules: settings of the functions, and what three of them count."""

import pytest
import torch

import fldet.losses as losses

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 3
Y = torch.arange(40) % 4
MODULES = {
    losses.FocalLoss: losses.sigmoid_focal_loss,
    losses.FocalLossStar: losses.sigmoid_focal_loss_star,
    losses.Poly1FocalLoss: losses.poly1_focal_loss,
    losses.AsymmetricLoss: losses.asymmetric_loss,
    losses.QualityFocalLoss: losses.quality_focal_loss,
    losses.VarifocalLoss: losses.varifocal_loss,
    losses.GHMLoss: losses.ghm_loss,
}


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_a_module_is_its_function_with_the_mean(kind):
    weight = torch.rand(40, generator=torch.Generator().manual_seed(1))
    expected = MODULES[kind](X, Y, reduction="mean", weight=weight)
    assert torch.equal(kind()(X, Y, weight), expected)
    assert torch.equal(
        kind(reduction="sum", ignore_index=3)(X, Y),
        MODULES[kind](X, Y, reduction="sum", ignore_index=3),
    )
    assert "reduction='mean'" in repr(kind())


def test_the_softmax_module_stands_where_cross_entropy_stood():
    weight = torch.tensor([1.0, 2.0, 0.5])
    plain = torch.nn.CrossEntropyLoss(weight, ignore_index=3, label_smoothing=0.1)
    focal = losses.SoftmaxFocalLoss(weight, gamma=0.0, ignore_index=3, label_smoothing=0.1)
    assert torch.equal(focal(X, Y), plain(X, Y))
    assert [name for name, _ in focal.named_buffers()] == ["weight"]


def test_a_ramp_goes_from_one_gamma_to_another_and_is_kept_in_checkpoints():
    loss = losses.FocalLoss(gamma=losses.GammaRamp(0.0, 2.0, steps=4))
    values = [loss(X, Y) for _ in range(6)]
    for step, value in enumerate(values):
        gamma = min(step / 4, 1) * 2.0
        assert torch.equal(value, losses.sigmoid_focal_loss(X, Y, gamma=gamma, reduction="mean"))
    loss.eval()
    loss(X, Y)
    assert loss.state_dict()["gamma.step"] == 6
    other = losses.FocalLoss(gamma=losses.GammaRamp(0.0, 2.0, steps=4))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(X, Y), values[-1])
    for bad in ((-1.0, 2.0, 3), (0.0, 2.0, 0)):
        with pytest.raises(ValueError, match="must be"):
            losses.GammaRamp(*bad)


def test_the_equalized_loss_counts_what_positives_and_negatives_pull():
    loss = losses.EqualizedFocalLoss(3, ignore_index=None)
    ones = torch.ones(3)
    first = losses.equalized_focal_loss(X, Y, ones, reduction="mean")
    torch.testing.assert_close(loss(X, Y), first)
    one_hot = (Y[:, None] == torch.arange(3)).float()
    away = (torch.sigmoid(X) - one_hot).abs().double()
    ratios = ((away * one_hot).sum(0) / (away * (1 - one_hot)).sum(0)).clamp(max=1)
    second = losses.equalized_focal_loss(X, Y, ratios, reduction="mean")
    torch.testing.assert_close(loss(X, Y), second)
    loss.eval()
    before = loss.ratios.positives.clone()
    loss(X, Y)
    assert torch.equal(loss.ratios.positives, before)


def test_equalized_of_balanced_classes_is_the_focal_loss():
    torch.testing.assert_close(
        losses.equalized_focal_loss(X, Y, [1.0] * 3), losses.sigmoid_focal_loss(X, Y)
    )


def test_the_counts_of_ghm_are_averaged_in_training():
    loss = losses.GHMLoss(momentum=0.75)
    counts = losses.GHMLoss().counts([loss._examples(X, Y, None)])
    assert counts.sum() == X.numel()
    loss(X, Y)
    torch.testing.assert_close(loss.counts.counts, counts / 4)
    loss.eval()
    loss(X, Y)
    torch.testing.assert_close(loss.counts.counts, counts / 4)
    for bad in ({"bins": 0}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match="bins must be"):
            losses.GHMLoss(**bad)


def test_ghm_weighs_every_part_of_the_gradients_alike():
    """So that each of M parts that are not empty adds its mean cross entropy, over M."""
    x = torch.tensor([3.0, 3.0, 3.0, -3.0])[:, None]
    y = torch.zeros(4, dtype=torch.long)
    losses_of_each = torch.nn.functional.softplus(-x[:, 0])
    expected = (losses_of_each[:3].mean() + losses_of_each[3]) / 2
    torch.testing.assert_close(losses.ghm_loss(x, y), expected)
