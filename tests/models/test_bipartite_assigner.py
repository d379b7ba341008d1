import pytest
import torch
from mmengine.structures import InstanceData

from fldet.models.task_modules.bipartite_assigner import BipartiteAssigner
from fldet.models.task_modules.max_iou_assigner import MaxIoUAssigner


def assign(priors, boxes, labels, assigner=None):
    return (assigner or BipartiteAssigner()).assign(
        InstanceData(priors=torch.tensor(priors, dtype=torch.float32).reshape(-1, 4)),
        InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
        ),
    )


def square(x, side=10):
    return [x, 0, x + side, side]


ROWS = {
    "nothing to find": ([square(0)], [], [], [0]),
    "no boxes": ([], [square(0)], [5], []),
    "one below .5 is positive as the best": ([square(0), square(20)], [square(6)], [5], [1, 0]),
    "all above .5": ([square(0), square(1), square(8)], [square(1)], [5], [1, 1, 0]),
    "the second best box for the second": (
        [square(0), square(6), square(50)],
        [square(1), square(0)],
        [5, 6],
        [2, 1, 0],
    ),
    "equal boxes are shared out": ([square(0), square(0)], [square(0)] * 3, [5, 6, 7], [1, 2]),
    "an object that touches nothing": ([square(0)], [square(40)], [5], [0]),
    "an object of no area": ([square(0)], [square(3, side=0)], [5], [0]),
}


@pytest.mark.parametrize(("priors", "boxes", "labels", "expected"), ROWS.values(), ids=ROWS)
def test_which_object_a_box_gets(priors, boxes, labels, expected):
    found = assign(priors, boxes, labels)
    assert found.gt_inds.tolist() == expected
    assert found.labels.tolist() == [labels[i - 1] if i else -1 for i in expected]
    assert found.num_gts == len(boxes)


def test_two_objects_that_fight_for_one_box_with_the_other_assigner():
    """The reason for this one: there the first object has no box at all."""
    priors, boxes = [square(0), square(6), square(50)], [square(1), square(0)]
    other = MaxIoUAssigner(neg_iou_thr=0.5, gt_max_assign_all=False)
    assert assign(priors, boxes, [5, 6], other).gt_inds.tolist() == [2, 0, 0]


def test_between_the_thresholds():
    assigner = BipartiteAssigner(pos_iou_thr=0.7, neg_iou_thr=0.4)
    found = assign([square(0), square(3), square(6)], [square(0)], [2], assigner)
    assert found.gt_inds.tolist() == [1, -1, 0]
    assert found.labels.tolist() == [2, -1, -1]
    torch.testing.assert_close(found.max_overlaps, torch.tensor([1, 7 / 13, 4 / 16]))


@pytest.mark.parametrize("options", [{"pos_iou_thr": 0}, {"neg_iou_thr": 0.6}])
def test_thresholds_that_cannot_be(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be in"):
        BipartiteAssigner(**options)
