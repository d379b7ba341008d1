import pytest
import torch

from fldet.losses import sigmoid_focal_loss
from fldet.models.losses.sigmoid_loss import CrossEntropyLoss, FocalLoss, FocalLossStar, HingeLoss
from fldet.models.losses.variants import AsymmetricLoss, Poly1FocalLoss
from fldet.registry import MODELS

LOSSES = [
    FocalLoss(),
    FocalLoss(gamma=0.5, alpha=None),
    FocalLossStar(),
    FocalLossStar(gamma=4.0, beta=0.0),
    CrossEntropyLoss(),
    CrossEntropyLoss(alpha=0.75),
    HingeLoss(),
    HingeLoss(threshold=1.0, alpha=0.9),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
LABELS = torch.tensor([0, 3, 2, 3, 3, 1])  # 3 is background


def logits(n=6, k=3):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(0))


def test_sum_over_all_anchors_and_classes_over_avg_factor():
    x = logits()
    targets = torch.zeros(6, 3)
    targets[[0, 2, 5], [0, 2, 1]] = 1
    expected = sigmoid_focal_loss(x, targets).sum() / 3
    torch.testing.assert_close(FocalLoss()(x, LABELS, avg_factor=3), expected)


@every_loss
def test_weight_zero_ignores_an_anchor(loss):
    x = logits()
    weight = torch.tensor([1.0, 1, 1, 0, 1, 1])
    kept = [0, 1, 2, 4, 5]
    torch.testing.assert_close(
        loss(x, LABELS, weight, reduction_override="sum"),
        loss(x[kept], LABELS[kept], reduction_override="sum"),
    )


@every_loss
@pytest.mark.parametrize(
    ("n", "k", "label", "weight"),
    [
        (5, 3, 3, 1.0),  # no box at all
        (5, 1, 0, 1.0),  # one class
        (5, 1, 1, 1.0),  # one class, no box
        (1, 3, 2, 1.0),  # one anchor
        (5, 3, 0, 0.0),  # all ignored
        (0, 3, 0, 1.0),  # no anchor
    ],
)
def test_edge_cases_are_finite_and_have_a_gradient(loss, n, k, label, weight):
    x = logits(n, k).requires_grad_()
    value = loss(x, torch.full((n,), label), torch.full((n,), weight))
    value.backward()
    assert torch.isfinite(value)
    assert (value == 0) == (weight == 0 or n == 0)
    assert torch.isfinite(x.grad).all()
    assert x.grad.shape == x.shape
    assert x.grad.any() == (weight != 0 and n != 0)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(loss, dtype):
    half = logits().to(dtype).requires_grad_()
    value = loss(half, LABELS)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.detach().float(), LABELS))
    value.backward()
    assert half.grad.dtype == dtype


@every_loss
def test_the_map_of_a_level_counts_as_its_flattened_rows(loss):
    num_images, num_anchors, num_classes, height, width = 2, 4, 3, 5, 2
    generator = torch.Generator().manual_seed(1)
    cls_score = torch.randn(
        num_images, num_anchors * num_classes, height, width, generator=generator
    )
    labels = torch.randint(0, 4, (num_images, height, width, num_anchors), generator=generator)
    rows = cls_score.permute(0, 2, 3, 1).reshape(-1, num_classes)
    torch.testing.assert_close(loss(cls_score, labels), loss(rows, labels.flatten()))
    torch.testing.assert_close(
        loss.per_anchor(cls_score, labels).flatten(), loss.per_anchor(rows, labels.flatten())
    )
    channels_last = cls_score.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(channels_last, labels), loss(cls_score, labels))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 3, 4), r"labels of shape \(2, 5, 2, A\)"),
        ((2 * 5 * 2 * 4,), r"labels of shape \(2, 5, 2, A\)"),
        ((2, 5, 2, 5), "12 channels are no multiple of 5 anchors"),
    ],
)
def test_labels_that_do_not_fit_a_map_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        FocalLoss()(torch.zeros(2, 12, 5, 2), torch.zeros(shape, dtype=torch.long))


def test_loss_weight_scales_the_sum_but_not_the_loss_of_an_anchor():
    x = logits()
    double = FocalLoss(loss_weight=2.0)
    torch.testing.assert_close(double(x, LABELS), 2 * FocalLoss()(x, LABELS))
    assert torch.equal(double.per_anchor(x, LABELS), FocalLoss().per_anchor(x, LABELS))


def test_alpha_for_each_class():
    x = logits()
    alphas = [0.1, 0.5, 0.9]
    value = FocalLoss(alpha=alphas).per_anchor(x, LABELS)
    unbalanced = sigmoid_focal_loss(x, LABELS, alpha=None)
    alpha_t = 1 - torch.tensor(alphas).repeat(6, 1)
    alpha_t[[0, 2, 5], [0, 2, 1]] = torch.tensor([0.1, 0.9, 0.5])
    torch.testing.assert_close(value, (alpha_t * unbalanced).sum(dim=1))


CLASS_WEIGHTS = [0.5, 3.0, 0.0]
WEIGHTED = [
    FocalLoss(class_weight=CLASS_WEIGHTS),
    FocalLoss(gamma=0.5, alpha=[0.1, 0.9, 0.5], class_weight=CLASS_WEIGHTS, loss_weight=2.0),
    FocalLossStar(class_weight=CLASS_WEIGHTS),
    CrossEntropyLoss(class_weight=CLASS_WEIGHTS),
    HingeLoss(alpha=0.75, class_weight=CLASS_WEIGHTS),
    Poly1FocalLoss(class_weight=CLASS_WEIGHTS),
    AsymmetricLoss(class_weight=CLASS_WEIGHTS),
]


def by_formula(loss, rows, targets, weight):
    """The loss of (N, K) rows in float64, class by class with the alpha of that class."""
    total = rows.new_zeros(())
    for k, factor in enumerate(loss.class_weight):
        x, t = rows[:, k], targets[:, k]
        if loss.formula is None:
            terms = loss.elementwise(x, t)
        else:
            alpha = loss.alpha[k] if isinstance(loss.alpha, list) else loss.alpha
            positive, negative = (1, 1) if alpha is None else (alpha, 1 - alpha)
            terms = t * positive * loss.formula(x) + (1 - t) * negative * loss.formula(-x)
        total = total + factor * (weight * terms).sum()
    return loss.loss_weight * total / 4


@pytest.mark.parametrize("loss", WEIGHTED, ids=repr)
@pytest.mark.parametrize(
    ("of", "shape"),  # what there is for each score: nothing, its share or its weight
    [
        *[("labels", shape) for shape in [(7,), (1,), (0,), (2, 5, 2, 4), (1, 3, 3, 1)]],
        *[("shares", shape) for shape in [(7,), (0,), (2, 5, 2, 1)]],
        *[("weights", shape) for shape in [(7,), (0,)]],
    ],
)
def test_a_weight_of_each_class_multiplies_both_sides(loss, of, shape):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, shape, generator=generator)
    weight = torch.randint(0, 3, shape, generator=generator).double()  # a third is ignored
    x = torch.randn(*shape, 3, generator=generator, dtype=torch.float64).requires_grad_()
    targets = (labels[..., None] == torch.arange(3)).double()
    rows, weights = x.view(-1, 3), weight.view(-1)
    expected = by_formula(loss, rows, targets.view(-1, 3), weights)
    (slope,) = torch.autograd.grad(expected, x)
    for layout in (torch.contiguous_format, torch.channels_last)[: 1 + (len(shape) == 4)]:
        logits, given, of_given = x, targets if of == "shares" else labels, weight
        if len(shape) == 4:  # (N, A * K, H, W)
            logits = x.flatten(3).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            if of == "shares":
                given, of_given = targets[..., 0, :].permute(0, 3, 1, 2), weight[..., 0]
        if of == "weights":
            of_given = weight[:, None].expand(-1, 3).contiguous()
        found = loss(logits, given, of_given, avg_factor=4)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, x)[0], slope)
    if of == "labels":
        found = loss.loss_weight * (loss.per_anchor(logits, labels) * weight).sum() / 4
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [FocalLoss, HingeLoss])  # summed at once, and by autograd
@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0], [1.0] * 4])
def test_there_are_as_many_class_weights_as_classes(loss, weights):
    with pytest.raises(ValueError, match=r"class.weight.* 3 classes"):
        loss(class_weight=weights)(logits(), LABELS)


def test_agrees_with_mmdets_focal_loss():
    mmdets = MODELS.build(dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    x, weight = logits(), torch.tensor([1.0, 1, 1, 0, 1, 1])
    ours, theirs = FocalLoss()(x, LABELS, weight, 3.0), mmdets(x, LABELS, weight, avg_factor=3.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (FocalLoss, dict(use_sigmoid=False), "FocalLoss needs use_sigmoid=True, got False"),
        (FocalLoss, dict(gamma=-1.0), "gamma must be finite and >= 0, got -1.0"),
        (FocalLoss, dict(alpha=1.5), r"alpha must be None or in \[0, 1\], got 1.5"),
        (CrossEntropyLoss, dict(alpha=[0.5, -1]), r"got \[0.5, -1\]"),
        (FocalLoss, dict(class_weight=[1.0, -1.0]), r"class_weight must .* got \[1.0, -1.0\]"),
        (FocalLoss, dict(class_weight=2.0), "class_weight must be None or finite numbers .* got 2"),
        (HingeLoss, dict(class_weight=[1.0, float("inf")]), "class_weight must be"),
        (FocalLossStar, dict(gamma=0.0), "gamma must be > 0 and beta finite, got 0.0"),
        (HingeLoss, dict(threshold=0.0), r"threshold must be in \(0, 1\], got 0.0"),
    ],
)
def test_wrong_arguments_are_named_when_the_loss_is_made(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 4]), r"must be in 0..3 \(3 is background\), got 0..4"),
        (torch.tensor([-1, 0]), r"got -1..0"),
        (torch.tensor([0]), r"labels of shape \(2,\) or .* got \(1,\)"),
    ],
)
def test_wrong_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        FocalLoss()(torch.zeros(2, 3), labels)


ONES = torch.ones
ONE_CLASS = torch.tensor([0, 1, 0, 1, 1, 0])
MAP, MAP_LABELS = torch.zeros(2, 6, 4, 3), torch.zeros(2, 4, 3, 2, dtype=torch.long)
WRONG = {
    "one class, weight (1, 6)": (logits(6, 1), ONE_CLASS, ONES(1, 6), 1.0),
    "weight of one number": (logits(), LABELS, ONES(1), 1.0),
    "weight of each class": (logits(), LABELS, ONES(3), 1.0),
    "weight of too few anchors": (logits(), LABELS, ONES(5), 1.0),
    "weights of too few levels": ([logits()] * 2, [LABELS] * 2, [ONES(6)], 1.0),
    "a level's weight of another shape": ([logits()] * 2, [LABELS] * 2, [ONES(6), ONES(6, 1)], 1),
    "map, weight without its anchors": (MAP, MAP_LABELS, ONES(2, 4, 3), 1.0),
    "map, weight in another order": (MAP, MAP_LABELS, ONES(2, 2, 4, 3), 1.0),
    "map, flat weight": (MAP, MAP_LABELS, ONES(48), 1.0),
    "map, labels in another order": (MAP, MAP_LABELS.permute(0, 3, 1, 2), None, 1.0),
    "map, flat labels": (MAP, MAP_LABELS.flatten(), None, 1.0),
    "divisor of each anchor": (logits(), LABELS, None, ONES(6)),
    "labels of too few anchors": (logits(), LABELS[:5], None, 1.0),
    "labels in a column": (logits(), LABELS[:, None], None, 1.0),
    "labels of too few levels": ([logits()] * 2, [LABELS], None, 1.0),
    "labels that are no integers": (logits(), LABELS.float(), None, 1.0),
    "labels that are booleans": (logits(), LABELS > 1, None, 1.0),
    "targets beyond one": (logits(), torch.full((6, 3), 2), None, 1.0),
    "targets that are not finite": (logits(), ONES(6, 3) * torch.nan, None, 1.0),
    "a label below zero": (logits(), LABELS - 1, None, 1.0),
    "a label above K": (logits(), LABELS + 1, None, 1.0),
}


@every_loss
@pytest.mark.parametrize("what", WRONG)
def test_nothing_is_broadcast_and_nothing_is_rounded(loss, what):
    with pytest.raises(ValueError, match=r"expected|must be|argument 2 is"):
        loss(*WRONG[what])


@every_loss
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_zeros_and_ones_of_any_type_are_targets(loss, dtype):
    targets = (LABELS[:, None] == torch.arange(3)).to(dtype)
    weight = torch.rand(6, generator=torch.Generator().manual_seed(2))
    expected = loss(logits(), LABELS, weight, torch.tensor(3.0))
    torch.testing.assert_close(loss(logits(), targets, weight, 3), expected)


@every_loss
def test_reductions_are_those_of_mmdetection(loss):
    x = logits()
    each = loss(x, LABELS, reduction_override="none")
    assert each.shape == x.shape
    torch.testing.assert_close(each.sum(-1), loss.per_anchor(x, LABELS))
    torch.testing.assert_close(loss(x, LABELS), each.mean())
    torch.testing.assert_close(loss(x, LABELS, reduction_override="sum"), each.sum())
    torch.testing.assert_close(loss(x, LABELS, avg_factor=4), each.sum() / 4)
    with pytest.raises(ValueError, match="avg_factor is of the mean"):
        loss(x, LABELS, avg_factor=4, reduction_override="sum")


@every_loss
def test_a_weight_of_each_score_weighs_it(loss):
    x, weight = logits(), torch.rand(6, 3, generator=torch.Generator().manual_seed(3))
    each = loss(x, LABELS, reduction_override="none")
    torch.testing.assert_close(loss(x, LABELS, weight, avg_factor=2), (each * weight).sum() / 2)
    one_hot = (LABELS[:, None] == torch.arange(3)).float()
    torch.testing.assert_close(loss(x, one_hot, weight, avg_factor=2), (each * weight).sum() / 2)


@every_loss
def test_shares_are_expected_over_both_labels(loss):
    x, share = logits(), torch.full((6, 3), 0.3)
    one, zero = (loss(x, torch.full((6, 3), v)) for v in (1.0, 0.0))
    torch.testing.assert_close(loss(x, share), 0.3 * one + 0.7 * zero)


def test_probabilities_of_a_head_that_has_activated_them():
    x = logits()
    activated = FocalLoss(activated=True)
    torch.testing.assert_close(activated(torch.sigmoid(x), LABELS), FocalLoss()(x, LABELS))
    for theirs in (dict(type="mmdet.FocalLoss", activated=True),):
        expected = MODELS.build(theirs)(
            torch.sigmoid(x), (LABELS[:, None] == torch.arange(3)).float()
        )
        torch.testing.assert_close(activated(torch.sigmoid(x), LABELS), expected)
    edges = torch.tensor([[0.0, 1.0, 0.5]], requires_grad=True)
    activated(edges, torch.tensor([0])).backward()
    assert edges.grad.isfinite().all()
