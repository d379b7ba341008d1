"""The variants over anchors: as MMDetection's where it has them, and in heads."""

import pytest
import torch

from fldet.registry import MODELS

K = 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, K, generator=GENERATOR) * 2
LABELS = torch.arange(40) % (K + 1)
QUALITY = torch.rand(40, generator=GENERATOR)
WEIGHT = (torch.rand(40, generator=GENERATOR) > 0.3).float()
VARIANTS = {
    "Poly1FocalLoss": {},
    "AsymmetricLoss": {},
    "QualityFocalLoss": {},
    "VarifocalLoss": {},
    "EqualizedFocalLoss": {"num_classes": K},
    "GHMLoss": {"momentum": 0.75},
}


def build(kind, **settings):
    return MODELS.build({"type": kind, **settings})


def value_and_slope(loss, *arguments, **options):
    x = X.clone().requires_grad_()
    value = loss(x, *arguments, **options)
    value.sum().backward()
    return value.detach().sum(), x.grad


def assert_same(ours, theirs, *arguments, **options):
    for found, expected in zip(
        value_and_slope(ours, *arguments, **options),
        value_and_slope(theirs, *arguments, **options),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_quality_focal_loss_is_mmdetections():
    ours, theirs = (build(f"{scope}.QualityFocalLoss") for scope in ("fldet", "mmdet"))
    # theirs weighs what it has summed over the classes: a value for each anchor in its mean
    assert_same(ours, theirs, (LABELS, QUALITY), WEIGHT, avg_factor=7.0)


@pytest.mark.parametrize("iou_weighted", [True, False])
def test_varifocal_loss_is_mmdetections(iou_weighted):
    one_hot = (LABELS[:, None] == torch.arange(K)).float()
    ours, theirs = (
        build(f"{scope}.VarifocalLoss", use_sigmoid=True, iou_weighted=iou_weighted)
        for scope in ("fldet", "mmdet")
    )
    assert_same(ours, theirs, one_hot * QUALITY[:, None], avg_factor=7.0)


@pytest.mark.parametrize("momentum", [0.0, 0.75])
def test_ghm_is_mmdetections(momentum):
    one_hot = (LABELS[:, None] == torch.arange(K)).float()
    theirs = build("mmdet.GHMC", bins=10, momentum=momentum)
    ours = build("fldet.GHMLoss", bins=10, momentum=momentum)
    for scale in (1.0, 0.2, 3.0):
        found = ours(X * scale, LABELS, WEIGHT, avg_factor=3.0)
        expected = theirs(X * scale, one_hot, WEIGHT[:, None].expand(-1, K))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_maps_of_all_levels_are_the_rows_of_all_anchors(kind):
    maps = [torch.randn(2, 4 * K, size, size, generator=GENERATOR) for size in (5, 3)]
    labels = [torch.randint(0, K + 1, (2, size, size, 4), generator=GENERATOR) for size in (5, 3)]
    weights = [(torch.rand(y.shape, generator=GENERATOR) > 0.2).float() for y in labels]
    rows = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, K) for m in maps])
    flat = [torch.cat([v.flatten() for v in values]) for values in (labels, weights)]
    loss, same = (build(f"fldet.{kind}", **VARIANTS[kind]) for _ in range(2))
    found = loss(maps, labels, weights, avg_factor=5.0)
    torch.testing.assert_close(found, same(rows, *flat, avg_factor=5.0))


@pytest.mark.parametrize("kind", [*VARIANTS, "SoftmaxFocalLoss"])
def test_a_head_trains_with_it(kind):
    sigmoid = kind != "SoftmaxFocalLoss"
    head = build(
        "mmdet.RetinaHead" if not sigmoid else "fldet.RetinaHead",
        num_classes=K,
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        anchor_generator={
            "type": "mmdet.AnchorGenerator",
            "octave_base_scale": 4,
            "scales_per_octave": 1,
            "ratios": [1.0],
            "strides": [8, 16],
        },
        loss_cls={"type": f"fldet.{kind}", "use_sigmoid": sigmoid, **VARIANTS.get(kind, {})},
        train_cfg={
            "assigner": {
                "type": "mmdet.MaxIoUAssigner",
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.4,
                "min_pos_iou": 0,
                "ignore_iof_thr": -1,
            },
            "sampler": {"type": "mmdet.PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
    )
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    maps = [torch.randn(1, 8, size, size) for size in (8, 4)]
    truth = InstanceData(bboxes=torch.tensor([[4.0, 4.0, 36.0, 36.0]]), labels=torch.tensor([1]))
    meta = {"img_shape": (64, 64), "pad_shape": (64, 64), "batch_input_shape": (64, 64)}
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05)
    values = []
    for _ in range(15):
        found = head.loss_by_feat(*head(maps), [truth], [meta])["loss_cls"]
        found = sum(found) if isinstance(found, list) else found
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        values.append(found.item())
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("AsymmetricLoss", {"clip": 1.0}, "clip must be"),
        ("Poly1FocalLoss", {"epsilon": -2.0}, "epsilon must be"),
        ("QualityFocalLoss", {"beta": -1.0}, "beta must be"),
        ("VarifocalLoss", {"gamma": -1.0}, "gamma must be"),
        ("GHMLoss", {"bins": 0}, "bins must be"),
        ("QualityFocalLoss", {"use_sigmoid": False}, "QualityFocalLoss needs use_sigmoid=True"),
        ("SoftmaxFocalLoss", {"use_sigmoid": True}, "SoftmaxFocalLoss needs use_sigmoid=False"),
        ("SoftmaxFocalLoss", {"gamma": -1.0}, "gamma must be"),
        ("FocalLoss", {"reduction": "positives"}, "a head counts positives itself"),
        ("FocalLoss", {"reduction": "average"}, "reduction must be one of"),
    ],
)
def test_settings_out_of_range_are_named_when_the_loss_is_made(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        build(f"fldet.{kind}", **settings)


def test_the_softmax_loss_weighs_examples_and_divides_as_asked():
    loss, labels = build("fldet.SoftmaxFocalLoss", loss_weight=2.0), LABELS % K
    each = loss(X, labels, reduction_override="none")
    assert each.shape == (40,)
    torch.testing.assert_close(loss(X, labels), each.mean())
    torch.testing.assert_close(loss(X, labels, WEIGHT, avg_factor=4.0), (each * WEIGHT).sum() / 4)
    with pytest.raises(ValueError, match=r"expected a weight for each example, \(40,\)"):
        loss(X, labels, WEIGHT[:, None])


def test_probabilities_far_below_the_step_of_a_half_type_learn():
    p = torch.tensor([[5e-3, 5e-4, 5e-6]])
    exact = p.double().requires_grad_()
    for kind in (torch.bfloat16, torch.float32):
        found = p.to(kind).requires_grad_()
        for one in (found, exact):
            one.grad = None
            build("fldet.FocalLoss", activated=True, reduction="sum")(
                one, torch.ones_like(p)
            ).backward()
        torch.testing.assert_close(found.grad.double(), exact.grad, rtol=1e-2, atol=0)


REFUSED = {
    "labels of qualities out of range": ("QualityFocalLoss", {}, (LABELS + 4, QUALITY)),
    "too few labels": ("QualityFocalLoss", {}, (LABELS[:1], QUALITY)),
    "too few qualities": ("VarifocalLoss", {}, (LABELS, QUALITY[:1])),
    "labels that are no integers": ("QualityFocalLoss", {}, (LABELS.float(), QUALITY)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_labels_and_qualities_are_checked(what):
    kind, settings, labels = REFUSED[what]
    with pytest.raises(ValueError, match=r"expected|must be"):
        build(f"fldet.{kind}", **settings)(X, labels)


@pytest.mark.parametrize("kind", ["AsymmetricLoss", "QualityFocalLoss"])
def test_an_alpha_that_would_do_nothing_is_refused(kind):
    with pytest.raises(ValueError, match="has no balance by alpha"):
        build(f"fldet.{kind}", alpha=0.9)


def test_the_softmax_loss_refuses_what_the_others_refuse():
    loss, labels = build("fldet.SoftmaxFocalLoss"), LABELS % K
    for settings in ({"reduction": "means"}, {"reduction": "positives"}):
        with pytest.raises(ValueError, match="reduction must be"):
            build("fldet.SoftmaxFocalLoss", **settings)
    with pytest.raises(ValueError, match="avg_factor is of the mean"):
        loss(X, labels, avg_factor=7, reduction_override="sum")
    with pytest.raises(ValueError, match="expected one number"):
        loss(X, labels, avg_factor=torch.ones(5))
    with pytest.raises(ValueError, match="labels must be in"):
        loss(X, torch.full((40,), -100))


@pytest.mark.parametrize("kind", ["FocalLoss", *VARIANTS])
def test_a_map_without_an_image_costs_nothing(kind):
    loss = build(f"fldet.{kind}", **VARIANTS.get(kind, {}))
    maps = torch.zeros(0, 2 * K, 3, 3, requires_grad=True)
    value = loss(maps, torch.zeros(0, 3, 3, 2, dtype=torch.long))
    value.backward()
    assert value == 0


@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0.0)])
@pytest.mark.parametrize("kind", ["FocalLoss", "HingeLoss"])
def test_a_divisor_of_nothing_is_no_nan(kind, zero):
    loss = build(f"fldet.{kind}")
    assert loss(X, torch.full((40,), K), torch.zeros(40), avg_factor=zero) == 0


def test_levels_have_one_number_of_classes():
    for kind in ("FocalLoss", "Poly1FocalLoss"):
        with pytest.raises(ValueError, match="one number of classes"):
            build(f"fldet.{kind}")([X, torch.zeros(40, K + 1)], [LABELS, LABELS])
