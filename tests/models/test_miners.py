import pytest
import torch

from fldet.models.task_modules.miners import OHEM, Examples, HardNegatives


def examples(losses, boxes, positives=(), **changes):
    """Examples of one image; ``positives`` are indices."""
    losses = torch.tensor(losses)
    boxes = torch.as_tensor(boxes, dtype=torch.float).reshape(-1, 4)
    is_positive = torch.zeros(len(losses), dtype=torch.bool)
    is_positive[list(positives)] = True
    fields = dict(
        cls_losses=losses,
        box_losses=torch.zeros(len(losses)),
        is_positive=is_positive,
        classes=torch.zeros(len(losses), dtype=torch.long),
        anchors=boxes,
        decoded=boxes,
    )
    return Examples(**{**fields, **changes})


def wide(x, y=0):
    """A box of 100 x 10; two of them moved by d in x have the IoU (100 - d) / (100 + d)."""
    return [x, y, x + 100, y + 10]


# Ten anchors. 0-4 lie on a line at x = 0, 10, 20, 30, 200; 5-9 likewise, far below.
# IoU for a distance of 10: 90/110 = .82, of 20: 80/120 = .67, of 30: 70/130 = .54.
# By falling loss: 5 (.95) 0 (.9) 6 (.85) 1 (.8) 7 (.75) 2 (.7) 8 (.65) 3 (.6) 9 (.2) 4 (.1)
#   NMS .7: 5 stays; 0 stays; 6 goes (.82 with 5); 1 goes (.82 with 0); 7 stays (.67 with 5);
#           2 stays (.67 with 0); 8 goes (.82 with 7); 3 goes (.82 with 2); 9 and 4 stay, alone
#   NMS .5: 5, 0 stay; 6, 7, 8 go with 5 (.82, .67, .54); 1, 2, 3 go with 0; 9 and 4 stay
LOSSES = [0.9, 0.8, 0.7, 0.6, 0.1, 0.95, 0.85, 0.75, 0.65, 0.2]
BOXES = [wide(x) for x in (0, 10, 20, 30, 200)] + [wide(x, 500) for x in (0, 10, 20, 30, 200)]
POSITIVES = (0, 2, 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(num_examples=10, iou_threshold=0.7), [5, 0, 7, 2, 9, 4]),
        (dict(num_examples=10, iou_threshold=0.5), [5, 0, 9, 4]),
        (dict(num_examples=3, iou_threshold=0.7), [5, 0, 7]),
        (dict(num_examples=3, iou_threshold=0.5), [5, 0, 9]),
        # 1:3 of 8: at most 2 positives (0, 2), 3 negatives for each, but only 5, 7, 9 survive
        (dict(num_examples=8, iou_threshold=0.7, neg_pos_ratio=3), [5, 0, 7, 2, 9]),
        # 1:3 of 4: 1 positive (0), 3 negatives (5, 7, 9)
        (dict(num_examples=4, iou_threshold=0.7, neg_pos_ratio=3), [5, 0, 7, 9]),
        # at .5 the survivors are 5, 0, 9, 4: 2 positives (0, 4), negatives 5, 9
        (dict(num_examples=8, iou_threshold=0.5, neg_pos_ratio=3), [5, 0, 9, 4]),
        (dict(num_examples=4, iou_threshold=0.5, neg_pos_ratio=3), [5, 0, 9]),
        # 1:1 of 4: 2 positives, 2 negatives
        (dict(num_examples=4, iou_threshold=0.7, neg_pos_ratio=1), [5, 0, 7, 2]),
    ],
)
@pytest.mark.parametrize("prefilter", [None, 1, 3, 4096])
@pytest.mark.parametrize("per", ["image", "batch"])
def test_ten_anchors_in_two_clusters(options, expected, prefilter, per):
    miner = OHEM(**options, prefilter=prefilter, per=per)
    kept = miner.mine([examples(LOSSES, BOXES, POSITIVES)])
    assert [rows.tolist() for rows in kept] == [expected]


def test_an_image_without_positives_gives_nothing_at_a_ratio_unless_filled_up():
    image = examples(LOSSES, BOXES)
    assert OHEM(4, 0.7, neg_pos_ratio=3).mine([image])[0].tolist() == []
    assert OHEM(4, 0.7, neg_pos_ratio=3, fill=True).mine([image])[0].tolist() == [5, 0, 7, 2]


def test_a_batch_shares_its_number_of_examples():
    easy = examples([0.3, 0.2, 0.1], [wide(0), wide(200), wide(400)], positives=[0])
    hard = examples([0.9, 0.25, 0.8], [wide(0), wide(200), wide(400)])
    per_image = OHEM(2, 0.7).mine([easy, hard])
    assert [rows.tolist() for rows in per_image] == [[0, 1], [0, 2]]
    per_batch = OHEM(3, 0.7, per="batch").mine([easy, hard])
    assert [rows.tolist() for rows in per_batch] == [[0], [0, 2]]
    # one positive in the batch; its negatives come from wherever they are hardest
    ratio = OHEM(4, 0.7, neg_pos_ratio=3, per="batch").mine([easy, hard])
    assert [rows.tolist() for rows in ratio] == [[0], [0, 2, 1]]


def test_nms_on_anchors_or_decoded_boxes():
    apart = torch.tensor([wide(0), wide(200)]).float()
    image = examples([0.9, 0.8], [wide(0), wide(0)], decoded=apart)
    assert OHEM(2, 0.7).mine([image])[0].tolist() == [0]
    assert OHEM(2, 0.7, nms_on="decoded").mine([image])[0].tolist() == [0, 1]


def test_classes_suppress_each_other_or_not():
    image = examples([0.9, 0.8, 0.7], [wide(0)] * 3, classes=torch.tensor([1, 2, 1]))
    assert OHEM(3, 0.7).mine([image])[0].tolist() == [0]
    assert OHEM(3, 0.7, class_agnostic=False).mine([image])[0].tolist() == [0, 1]


def test_score_by_the_classification_loss_or_the_total():
    boxes = [wide(0), wide(200)]
    image = examples([0.9, 0.8], boxes, positives=[1], box_losses=torch.tensor([0.0, 0.5]))
    assert OHEM(1, 0.7).mine([image])[0].tolist() == [0]
    assert OHEM(1, 0.7, score="total").mine([image])[0].tolist() == [1]


def test_equal_losses_are_taken_in_the_order_of_the_anchors():
    image = examples([0.5] * 4, [wide(200 * i) for i in range(4)])
    assert OHEM(2, 0.7).mine([image])[0].tolist() == [0, 1]


@pytest.mark.parametrize("ratio", [None, 1, 3])
@pytest.mark.parametrize("per", ["image", "batch"])
@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_prefilter_changes_nothing(ratio, per, fill, seed):
    generator = torch.Generator().manual_seed(seed)

    def crowded(num_positives):
        corner = torch.randint(0, 80, (400, 2), generator=generator).float()
        side = torch.randint(10, 40, (400, 2), generator=generator).float()
        losses = torch.randint(0, 50, (400,), generator=generator) / 10.0  # many ties
        return examples(
            losses.tolist(),
            torch.cat([corner, corner + side], dim=1),
            torch.randperm(400, generator=generator)[:num_positives].tolist(),
            classes=torch.randint(0, 3, (400,), generator=generator),
        )

    images = [crowded(20), crowded(0), crowded(3)]
    options = dict(neg_pos_ratio=ratio, fill=fill, per=per, class_agnostic=seed % 2 == 0)
    for number in (8, 32):
        whole = OHEM(number, 0.5, prefilter=10**6, **options).mine(images)
        for prefilter in (1, 10, 100, 1000):
            found = OHEM(number, 0.5, prefilter=prefilter, **options).mine(images)
            assert [rows.tolist() for rows in found] == [rows.tolist() for rows in whole]


def test_few_examples_are_looked_at_where_few_suffice(monkeypatch):
    from fldet.models.task_modules import miners

    seen = []
    real = miners.nms
    monkeypatch.setattr(
        miners, "nms", lambda boxes, *rest: seen.append(len(boxes)) or real(boxes, *rest)
    )
    boxes = [wide(200 * i) for i in range(1000)]
    OHEM(20, 0.7, prefilter=50).mine([examples([0.5] * 1000, boxes)])
    assert seen == [50]


# --- negatives of highest loss, without NMS ---


@pytest.mark.parametrize(
    ("options", "positives", "expected"),
    [
        (dict(ratio=3), [1], [1, 5, 0, 6]),  # overlap does not matter
        (dict(ratio=1), [1, 4], [1, 4, 5, 0]),
        (dict(ratio=3), range(10), list(range(10))),  # no negatives at all
        (dict(ratio=3), [], []),
        (dict(ratio=3, min_negatives=2), [], [5, 0]),
        (dict(ratio=100), [0], [0, 5, 6, 1, 7, 2, 8, 3, 9, 4]),
    ],
)
def test_hard_negatives(options, positives, expected):
    kept = HardNegatives(**options).mine([examples(LOSSES, BOXES, positives)])
    assert kept[0].tolist() == expected


# --- what every miner must bear ---

MINERS = [
    OHEM(),
    OHEM(per="batch", nms_on="decoded", class_agnostic=False, score="total"),
    OHEM(neg_pos_ratio=3),
    OHEM(neg_pos_ratio=3, per="batch", fill=True),
    HardNegatives(),
]


@pytest.mark.parametrize("miner", MINERS, ids=lambda miner: type(miner).__name__)
@pytest.mark.parametrize(
    ("image", "most"),
    [
        (examples([], []), 0),  # no anchor, or all ignored
        (examples([0.5], [wide(0)]), 1),  # one anchor, background: no box in the image
        (examples([0.5], [wide(0)], [0]), 1),  # one anchor, positive
        (examples(LOSSES, BOXES), 10),  # no box
        (examples([0.0] * 10, BOXES, POSITIVES), 10),  # nothing is wrong any more
    ],
)
def test_edge_cases(miner, image, most):
    for kept in miner.mine([image, image]):
        assert kept.dtype == torch.int64
        assert len(kept) <= most
        assert len(kept.unique()) == len(kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("miner", MINERS, ids=lambda miner: type(miner).__name__)
def test_half_precision_losses(miner, dtype):
    image = examples(LOSSES, BOXES, POSITIVES)
    half = examples(LOSSES, BOXES, POSITIVES, cls_losses=image.cls_losses.to(dtype))
    same = [rows.tolist() for rows in miner.mine([half])]
    assert same == [rows.tolist() for rows in miner.mine([image])]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (OHEM, dict(num_examples=0), "num_examples and prefilter must be >= 1, got 0"),
        (OHEM, dict(iou_threshold=1.5), r"iou_threshold must be in \[0, 1\], got 1.5"),
        (OHEM, dict(num_examples=4, neg_pos_ratio=4), r"in 1..3, got 4"),
        (OHEM, dict(per="gpu"), "per must be one of image, batch, got 'gpu'"),
        (OHEM, dict(divisor="all"), "divisor must be one of selected, positives, got 'all'"),
        (HardNegatives, dict(ratio=-1), "ratio and min_negatives must be >= 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
