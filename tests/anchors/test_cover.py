"""The cover of boxes against all anchors of the real generator and the real assigner."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmengine.structures import InstanceData

from fldet.anchors import cover as anchor_cover
from fldet.anchors.cover import AnchorScheme, AssignRule, BoxSet, best_ious, iou, match
from fldet.errors import DataError
from fldet.models.task_modules.anchor_generator import AnchorGenerator

STRIDES = (8, 16, 32, 64, 128)
PAPER = AnchorScheme((32, 64, 128, 256, 512), STRIDES, 3, (0.5, 1.0, 2.0))
RULE = AssignRule()
SCHEMES = {
    "paper": PAPER,
    "one square": AnchorScheme((32, 64, 128, 256, 512), STRIDES, 1, (1.0,)),
    "broken numbers": AnchorScheme((17.96, 35.92, 71.84, 143.7, 287.4), STRIDES, 4, (0.333, 3.0)),
    "smaller than the stride": AnchorScheme((6, 20), (16, 32), 2, (0.5, 1.0)),
}
PADDED = np.array([[672, 416], [320, 800], [96, 64]])


def generator(scheme):
    return AnchorGenerator(
        sizes=scheme.sizes,
        strides=scheme.strides,
        num_scales=scheme.num_scales,
        ratios=scheme.ratios,
    )


def all_anchors(scheme, padded_wh):
    """Anchors of every level, and the level of each."""
    width, height = padded_wh.tolist()
    sizes = [(-(-height // s), -(-width // s)) for s in scheme.strides]
    levels = generator(scheme).grid_priors(sizes, device="cpu")
    return torch.cat(levels), np.repeat(np.arange(len(levels)), [len(one) for one in levels])


def random_boxes(seed, per_image=25):
    """Boxes of one pixel to the whole image, half of them on whole pixels, some at the edge."""
    rng = np.random.default_rng(seed)
    boxes, image_of = [], []
    for index, size in enumerate(PADDED):
        sides = np.exp(rng.uniform(0, np.log(size), (per_image, 2)))
        centres = rng.uniform(0, size, (per_image, 2))
        new = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        new[::2] = np.round(new[::2])
        new = np.clip(new, 0, np.tile(size, 2))
        new = new[(new[:, 2:] - new[:, :2]).min(axis=1) >= 1]
        boxes.append(new)
        image_of += [index] * len(new)
    return np.concatenate(boxes).astype(np.float32), np.array(image_of)


def box_set(boxes, image_of, scheme=PAPER, rule=RULE, padded=PADDED):
    boxes = np.asarray(boxes, np.float32)
    return BoxSet(boxes, np.asarray(image_of, np.int64), padded, boxes[:, 0], scheme, rule)


def assigned(boxes, padded_wh, scheme, rule):
    """Best IoU of each box and positives of each level, by MMDetection."""
    anchors, level_of = all_anchors(scheme, padded_wh)
    assigner = MaxIoUAssigner(**vars(rule))
    truth = InstanceData(bboxes=torch.tensor(boxes), labels=torch.zeros(len(boxes)).long())
    result = assigner.assign(InstanceData(priors=anchors), truth)
    positive = level_of[(result.gt_inds > 0).numpy()]
    best = assigner.iou_calculator(truth.bboxes, anchors).max(dim=1).values
    return best.numpy(), np.bincount(positive, minlength=len(scheme.sizes))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_base_anchors_are_those_of_the_generator(scheme):
    expected = [level.numpy() for level in generator(scheme).base_anchors]
    np.testing.assert_array_equal(scheme.base_anchors(), expected)
    assert scheme.per_location == len(expected[0])


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_best_iou_is_that_of_all_anchors(scheme):
    boxes, image_of = random_boxes(0)
    best = best_ious(boxes, PADDED[image_of], scheme)
    for index, padded_wh in enumerate(PADDED):
        anchors, _ = all_anchors(scheme, padded_wh)
        dense = iou(boxes[image_of == index, None], anchors.numpy()).max(axis=1)
        np.testing.assert_allclose(best[image_of == index], dense, atol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        AssignRule(),
        AssignRule(match_low_quality=False),
        AssignRule(min_pos_iou=0.3),
        AssignRule(pos_iou_thr=0.7, neg_iou_thr=0.3),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["paper", "broken numbers"])
def test_positives_are_those_of_the_assigner(name, rule):
    boxes, image_of = random_boxes(1)
    (cover,) = match(box_set(boxes, image_of, SCHEMES[name], rule))
    for index, padded_wh in enumerate(PADDED):
        best, positives = assigned(boxes[image_of == index], padded_wh, SCHEMES[name], rule)
        np.testing.assert_array_equal(cover.best_iou[image_of == index], best)
        np.testing.assert_array_equal(cover.positives[index], positives)


@pytest.mark.parametrize(
    ("box", "best", "positives"),
    [
        ([48, 48, 80, 80], 1.0, None),  # an anchor itself
        ([60, 62, 64, 66], 16 / 1024, 12),  # inside 3 x 4 square anchors: all tie
        ([-20, -20, 12, 12], 784 / (2 * 1024 - 784), None),  # beyond the grid: at its corner
    ],
)
def test_boxes_whose_best_anchor_is_known(box, best, positives):
    squares = SCHEMES["one square"]
    (cover,) = match(box_set([box], [0], squares, padded=np.array([[128, 128]])))
    assert cover.best_iou == pytest.approx(best)
    expected = assigned(np.array([box], np.float32), np.array([128, 128]), squares, AssignRule())
    np.testing.assert_array_equal(cover.positives[0], expected[1])
    if positives is not None:
        assert cover.positives.sum() == positives


@pytest.mark.parametrize("box", [[10, 10, 12, 12], [32, 30, 32, 34]], ids=["far", "no width"])
def test_a_box_that_shares_nothing_with_an_anchor_has_no_positives(box):
    scheme = AnchorScheme((2,), (32,), 1, (1.0,))
    (cover,) = match(box_set([box], [0], scheme, padded=np.array([[64, 64]])))
    assert (cover.best_iou.tolist(), cover.positives.tolist()) == ([0.0], [[0]])


def test_images_without_boxes_have_no_positives():
    (cover,) = match(box_set([[0, 0, 32, 32]], [1]))
    assert cover.positives.sum(axis=1).tolist()[::2] == [0, 0]
    assert cover.positives[1].sum() > 0
    (empty,) = match(box_set(np.zeros((0, 4)), []))
    assert (len(empty.best_iou), empty.positives.sum()) == (0, 0)


def test_chunks_of_images_change_nothing(monkeypatch):
    boxes, image_of = random_boxes(2)
    (whole,) = match(box_set(boxes, image_of))
    monkeypatch.setattr(anchor_cover, "_CHUNK", 7)
    parts = list(match(box_set(boxes, image_of)))
    assert len(parts) == len(PADDED)
    np.testing.assert_array_equal(np.concatenate([p.best_iou for p in parts]), whole.best_iou)
    np.testing.assert_array_equal(np.concatenate([p.positives for p in parts]), whole.positives)


def test_a_saved_box_set_is_read_again(tmp_path):
    boxes, image_of = random_boxes(3)
    saved = BoxSet(
        *(boxes, image_of, PADDED, boxes[:, 0], PAPER, AssignRule(0.6, 0.3)),
        about={"config": "é", "split": "train"},
    )
    loaded = BoxSet.load(saved.save(tmp_path / "new" / "boxes.npz"))
    np.testing.assert_array_equal(loaded.boxes, boxes)
    np.testing.assert_array_equal(loaded.image_of, image_of)
    assert (loaded.scheme, loaded.rule, loaded.about) == (saved.scheme, saved.rule, saved.about)


@pytest.mark.parametrize("content", [None, b"", b"text", "npz"], ids=str)
def test_files_that_hold_no_boxes(tmp_path, content):
    path = tmp_path / "boxes.npz"
    if content == "npz":
        np.savez(path, boxes=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"boxes\.npz") as error:
        BoxSet.load(path)
    assert "fldet analyze anchors" in error.value.expected
