"""YOLOv2's head against a literal copy of what darknet's region layer does, number by number."""

import math

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from fldet.models.dense_heads import yolov2_head
from fldet.models.dense_heads.region_loss import RegionSettings, Truth, region_loss, truth_of
from fldet.models.dense_heads.yolov2_head import PRIORS, YOLOv2Head

CLASSES = 3
SETTINGS = RegionSettings()


def overlap(x1, w1, x2, w2):
    return min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2)


def iou(a, b):
    w, h = overlap(a[0], a[2], b[0], b[2]), overlap(a[1], a[3], b[1], b[3])
    inter = 0 if w < 0 or h < 0 else w * h
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class RegionLayer:
    """``forward_region_layer`` for one image: loops, shares of the image, deltas written over.

    ``raw`` is (A, 5 + K, H, W) in float64, ``truths`` are (x, y, w, h, class), shares of the image.
    """

    def __init__(self, raw, truths, *, seen):
        self.out = raw.copy()
        self.out[:, [0, 1, 4]] = sigmoid(raw[:, [0, 1, 4]])
        exps = np.exp(raw[:, 5:] - raw[:, 5:].max(axis=1, keepdims=True))
        self.out[:, 5:] = exps / exps.sum(axis=1, keepdims=True)
        self.delta = np.zeros_like(raw)
        self.scales = np.zeros(raw[:, :5].shape)  # of what a delta is a difference times
        self.entropy = np.zeros(raw[:, 0].shape)
        _, _, self.h, self.w = raw.shape
        for n, j, i in np.ndindex(len(PRIORS), self.h, self.w):
            best = max([iou(self.box(n, j, i), truth) for truth in truths], default=0)
            self.delta[n, 4, j, i] = 1 * (0 - self.out[n, 4, j, i])
            self.scales[n, 4, j, i] = 1
            if best > 0.6:
                self.delta[n, 4, j, i] = 0
            if seen < 12800:
                shape = PRIORS[n][0] / self.w, PRIORS[n][1] / self.h
                self.delta_box(((i + 0.5) / self.w, (j + 0.5) / self.h, *shape), n, j, i, 0.01)
        for x, y, w, h, label in truths:
            i, j = int(x * self.w), int(y * self.h)
            shapes = [(0, 0, pw / self.w, ph / self.h) for pw, ph in PRIORS]
            ious = [iou(shape, (0, 0, w, h)) for shape in shapes]
            n = ious.index(max(ious))
            found = self.delta_box((x, y, w, h), n, j, i, 1 * (2 - w * h))
            self.delta[n, 4, j, i] = 5 * (found - self.out[n, 4, j, i])
            self.scales[n, 4, j, i] = 5
            for k in range(CLASSES):
                self.delta[n, 5 + k, j, i] = 1 * ((k == label) - self.out[n, 5 + k, j, i])
            self.entropy[n, j, i] = -math.log(self.out[n, 5 + label, j, i])

    def box(self, n, j, i):
        x, y, w, h = self.out[n, :4, j, i]
        size = math.exp(w) * PRIORS[n][0] / self.w, math.exp(h) * PRIORS[n][1] / self.h
        return ((i + x) / self.w, (j + y) / self.h, *size)

    def delta_box(self, truth, n, j, i, scale):
        x, y, w, h = truth
        sizes = math.log(w * self.w / PRIORS[n][0]), math.log(h * self.h / PRIORS[n][1])
        wanted = np.array([x * self.w - i, y * self.h - j, *sizes])
        self.delta[n, :4, j, i] = scale * (wanted - self.out[n, :4, j, i])
        self.scales[n, :4, j, i] = scale
        return iou(self.box(n, j, i), truth)

    def losses(self):
        """Of boxes, objectness and classes: half the squares, of which deltas are the slopes."""
        halves = self.delta[:, :5] ** 2 / np.where(self.scales, self.scales, 1) / 2
        return halves[:, :4].sum(), halves[:, 4].sum(), self.entropy.sum()

    def gradient(self):
        """What the backward pass hands on: deltas times the slope of the sigmoid."""
        slopes = np.ones_like(self.out)
        slopes[:, [0, 1, 4]] = self.out[:, [0, 1, 4]] * (1 - self.out[:, [0, 1, 4]])
        return self.delta * slopes


TRUTHS = {
    "no truth": [],
    "one truth": [(0.41, 0.37, 0.3, 0.5, 1)],
    "one of the whole image": [(0.5, 0.5, 1.0, 1.0, 0)],
    "two truths of one prior in a cell": [(0.41, 0.37, 0.3, 0.5, 1), (0.42, 0.39, 0.32, 0.5, 2)],
    "two truths of two priors in a cell": [(0.41, 0.37, 0.1, 0.1, 1), (0.42, 0.39, 0.9, 0.8, 2)],
    "at the edge": [(0.999, 0.999, 0.05, 0.05, 2), (0.001, 0.5, 0.002, 0.9, 0)],
}


def raw_map(height, width, truths, seed=0):
    """Random predictions; in the cells of truths all priors fit, so that some are left alone."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 1, (len(PRIORS), 5 + CLASSES, height, width))
    for x, y, w, h, _ in truths:
        i, j = int(x * width), int(y * height)
        for n, (pw, ph) in enumerate(PRIORS):
            place = x * width - i, y * height - j
            raw[n, :2, j, i] = [math.log(p / (1 - p)) for p in np.clip(place, 0.01, 0.99)]
            raw[n, 2:4, j, i] = math.log(w * width / pw) + 0.1, math.log(h * height / ph)
    return raw


def as_truth(truths, height, width):
    table = np.array(truths, np.float64).reshape(-1, 5)
    boxes = torch.from_numpy(table[:, :4] * np.array([width, height, width, height]))
    return Truth(boxes, torch.from_numpy(table[:, 4]).long())


@pytest.mark.parametrize("seen", [12799, 12800])
@pytest.mark.parametrize("name", TRUTHS)
def test_loss_and_gradient_are_those_of_the_region_layer(name, seen):
    height, width, truths = 5, 7, TRUTHS[name]
    raws = [raw_map(height, width, truths), raw_map(height, width, [], seed=1)]
    layers = [RegionLayer(raws[0], truths, seen=seen), RegionLayer(raws[1], [], seen=seen)]
    values = torch.from_numpy(np.stack(raws)).requires_grad_()
    losses = region_loss(
        values,
        [as_truth(truths, height, width), as_truth([], height, width)],
        torch.tensor(PRIORS, dtype=torch.float64),
        SETTINGS,
        torch.tensor(0.01 if seen < 12800 else 0.0, dtype=torch.float64),
    )
    sum(losses.values()).backward()
    wanted = -np.stack([layer.gradient() for layer in layers]) / 2
    torch.testing.assert_close(values.grad, torch.from_numpy(wanted), rtol=1e-9, atol=1e-12)
    sums = np.sum([layer.losses() for layer in layers], axis=0)
    assert [loss.item() for loss in losses.values()] == pytest.approx(sums / 2, rel=1e-9)
    if name == "one truth":
        assert (layers[0].delta[:, 4] == 0).sum() == 4  # the case of 0.6 is there


def head_with(**options):
    return YOLOv2Head(CLASSES, 1, test_cfg=ConfigDict(TEST), **options)


def as_centres(box):
    x1, y1, x2, y2 = map(float, box)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


TEST = {"score_thr": 0.005, "nms_pre": 100, "nms": {"type": "nms", "iou_threshold": 0.45}} | {
    "max_per_img": 100,
    "min_bbox_size": 0,
}


def gt(boxes, labels):
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )


def test_the_head_gives_boxes_in_pixels_to_the_loss_and_counts_images():
    truths = TRUTHS["one truth"]
    raw = raw_map(4, 6, truths)
    head = head_with().train()
    pred_map = torch.from_numpy(raw).float().flatten(0, 1)[None]
    x, y, w, h, label = truths[0]
    box = [(x - w / 2) * 192, (y - h / 2) * 128, (x + w / 2) * 192, (y + h / 2) * 128]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = head.loss_by_feat([pred_map], [gt([box], [label])], [{}])
    assert head.seen == 1
    layer = RegionLayer(raw, truths, seen=1)
    assert [loss.item() for loss in losses.values()] == pytest.approx(layer.losses(), rel=1e-5)


@pytest.mark.parametrize(
    ("seen", "training", "is_pulled"), [(12_798, 1, 1), (12_799, 1, 0), (0, 0, 0)]
)
def test_the_pull_ends_with_image_12800_and_is_of_trainings_alone(seen, training, is_pulled):
    head = head_with().train(bool(training))
    head.seen.fill_(seen)
    state = head.state_dict()
    other = head_with().train(bool(training))
    other.load_state_dict(state)  # a resumed run
    losses = other.loss_by_feat([torch.ones(1, 40, 2, 2)], [gt([], [])], [{}])
    assert (losses["loss_bbox"].item() > 0) == bool(is_pulled)
    assert other.seen == seen + training


def test_images_of_all_processes_are_counted(monkeypatch):
    monkeypatch.setattr(yolov2_head, "get_world_size", lambda: 4)
    head = head_with().train()
    for _ in range(3):
        head.loss_by_feat([torch.ones(2, 40, 2, 2)], [gt([], [])] * 2, [{}] * 2)
    assert head.seen == 24


def test_only_the_first_truths_and_no_slivers_count():
    boxes = torch.tensor([[0.0, 0, 64, 64], [10, 10, 10.1, 60], [32, 0, 64, 64], [0, 32, 64, 64]])
    truth = truth_of(boxes, torch.arange(4), stride=32, shape=(4, 4), most=3)
    assert truth.labels.tolist() == [0, 2]
    assert truth.boxes.tolist() == [[1, 1, 2, 2], [1.5, 1, 1, 2]]


def crowd(count):
    """Boxes of one size, each in a cell of its own in a map of 8 x 8."""
    corners = [(32 * (i % 8) + 4.0, 32 * (i // 8) + 4.0) for i in range(count)]
    return gt([(x, y, x + 24, y + 24) for x, y in corners], [i % CLASSES for i in range(count)])


def learnt(head, instances):
    """The cells whose objectness a loss pulls up; nothing there may be left alone."""
    pred_map = torch.zeros(1, 40, 8, 8, requires_grad=True)
    head.loss_by_feat([pred_map], [instances], [{}])["loss_obj"].backward()
    pulled_up = (pred_map.grad.view(5, 8, 8, 8)[:, 4] < 0).any(0)
    return set(pulled_up.flatten().nonzero().flatten().tolist())


def test_boxes_beyond_the_most_have_their_turn_in_training():
    head = head_with(train_cfg={"rescore": False, "max_truths": 30}).train()
    torch.manual_seed(0)
    first, state = learnt(head, crowd(40)), torch.get_rng_state()
    assert len(first) == 30
    rest = [learnt(head, crowd(40)) for _ in range(20)]
    assert set().union(first, *rest) == set(range(40))
    torch.set_rng_state(state)  # as a resumed run does by its place
    assert [learnt(head, crowd(40)) for _ in range(20)] == rest


@pytest.mark.parametrize(("count", "training"), [(30, True), (0, True), (30, False), (40, False)])
def test_up_to_the_most_and_in_evaluation_nothing_is_drawn(count, training):
    head = head_with(train_cfg={"rescore": False, "max_truths": 30}).train(training)
    state = torch.get_rng_state()
    assert learnt(head, crowd(count)) == set(range(min(count, 30)))
    assert torch.equal(torch.get_rng_state(), state)


def test_decoding_undoes_encoding():
    """Predictions that the loss is content with become the truth's box again."""
    truth = [(70.0, 33.0, 141.0, 120.0)]
    head = head_with().eval()
    raw = np.zeros((1, 5, 8, 4, 6))
    raw[0, :, 4] = -20
    cx, cy = (70 + 141) / 2 / 32, (33 + 120) / 2 / 32
    n = 1  # shape IoU of 71 x 87 pixels is best with the second prior
    logits = [math.log(p % 1 / (1 - p % 1)) for p in (cx, cy)]
    sizes = math.log(71 / 32 / PRIORS[n][0]), math.log(87 / 32 / PRIORS[n][1])
    raw[0, n, :, int(cy), int(cx)] = *logits, *sizes, 20, -20, 20, -20
    pred_map = torch.from_numpy(raw).float().flatten(1, 2)
    losses = head.loss_by_feat([pred_map], [gt(truth, [1])], [{}])
    assert all(value.item() < 1e-6 for value in losses.values())
    (found,) = head.predict_by_feat([pred_map], [{"img_shape": (120, 192)}])
    assert len(found) == 1
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.bboxes, torch.tensor(truth), rtol=0, atol=1e-3)


def test_predictions_are_the_products_of_all_cells_after_nms():
    """Against a plain pass over all boxes and classes, in images of two sizes."""
    head = head_with().eval()
    raw = np.stack([raw_map(3, 4, [], seed) for seed in (2, 3)])
    metas = [
        {"img_shape": (96, 128), "scale_factor": (2.0, 2.0)},
        {"img_shape": (80, 100), "scale_factor": (1.0, 1.0)},
    ]
    head.test_cfg.nms_pre = -1
    found = head.predict_by_feat([torch.from_numpy(raw).float().flatten(1, 2)], metas, rescale=True)
    for one, values, meta in zip(found, raw, metas, strict=True):
        layer = RegionLayer(values, [], seen=12800)
        boxes = np.array([layer.box(*at) for at in np.ndindex(5, 3, 4)]) * [128, 96, 128, 96]
        corners = np.concatenate(
            [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1
        )
        height, width = meta["img_shape"]
        corners = torch.from_numpy(np.clip(corners, 0, [width, height] * 2))
        scores = layer.out[:, 4:5] * layer.out[:, 5:]
        inside = (corners[:, 2:] > corners[:, :2]).all(dim=1)
        assert 0 < inside.sum() < 60 or width == 128
        wanted = []
        for label in range(CLASSES):
            kept = []
            for score, row in sorted(zip(scores[:, label].ravel(), range(60), strict=True))[::-1]:
                rivals = [iou(*map(as_centres, (corners[row], corners[k]))) for _, k in kept]
                if inside[row] and score > 0.005 and not any(rival > 0.45 for rival in rivals):
                    kept.append((score, row))
            wanted += [(score, label, row) for score, row in kept]
        wanted = sorted(wanted)[::-1][:100]
        assert len(one) == len(wanted) > 50
        assert one.labels.tolist() == [label for _, label, _ in wanted]
        torch.testing.assert_close(
            one.scores.double(),
            torch.tensor([score for score, _, _ in wanted]),
            rtol=1e-5,
            atol=1e-6,
        )
        boxes = corners[[row for _, _, row in wanted]] / meta["scale_factor"][0]
        torch.testing.assert_close(one.bboxes, boxes.float(), rtol=1e-4, atol=1e-4)


def test_refuses_unknown_and_impossible_settings():
    with pytest.raises(TypeError, match="no_object"):
        YOLOv2Head(3, 8, train_cfg={"no_object": 1.0})
    with pytest.raises(ValueError, match=r"ignore_iou is out of range: 1\.5"):
        YOLOv2Head(3, 8, train_cfg={"ignore_iou": 1.5})
    with pytest.raises(ValueError, match="above 0"):
        YOLOv2Head(3, 8, priors=[(1.0, 0.0)])
