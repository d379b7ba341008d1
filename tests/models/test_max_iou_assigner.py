import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import MaxIoUAssigner as MMDetMaxIoUAssigner
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from fldet.models.task_modules import AnchorGenerator, MaxIoUAssigner
from fldet.registry import TASK_UTILS

BOXES_PER_BLOCK = (1, 3, 1000)
TEN = [0, 0, 10, 10]  # of ten rows: a box of its first k rows has IoU k / 10 with it
FAR = [90, 90, 99, 99]


class BlockAssigner(MaxIoUAssigner):
    """Does on a CPU what is done on a GPU, with a given number of boxes at once."""

    boxes_per_block = 1

    def _match(self, anchors, boxes):
        self.PAIRS_PER_BLOCK = self.boxes_per_block * len(anchors.area)
        return self._match_in_blocks(anchors, boxes)


def every_way(**settings):
    """The same rule box by box, on strips of three sizes, and in blocks of three sizes."""
    ways = {}
    for size in (1, 3, MaxIoUAssigner.ANCHORS_PER_STRIP):
        ways[f"strips of {size}"] = MaxIoUAssigner(**settings)
        ways[f"strips of {size}"].ANCHORS_PER_STRIP = size
    for size in BOXES_PER_BLOCK:
        ways[f"blocks of {size}"] = BlockAssigner(**settings)
        ways[f"blocks of {size}"].boxes_per_block = size
    return ways


def rows(boxes, dtype=torch.float):
    return torch.as_tensor(boxes, dtype=dtype).reshape(-1, 4)


def assign(assigner, anchors, boxes, labels=None, crowds=None, dtype=torch.float):
    boxes = rows(boxes, dtype)
    labels = torch.arange(len(boxes)) % 7 if labels is None else torch.tensor(labels)
    return assigner.assign(
        InstanceData(priors=rows(anchors, dtype)),
        InstanceData(bboxes=boxes, labels=labels),
        None if crowds is None else InstanceData(bboxes=rows(crowds, dtype)),
    )


def assert_same(found, expected, what=""):
    assert found.num_gts == expected.num_gts
    for name in ("gt_inds", "max_overlaps", "labels"):
        mine, other = getattr(found, name), getattr(expected, name)
        assert mine.dtype == other.dtype, (name, what)
        assert torch.equal(mine, other), (name, what)


def mmdet(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, **settings):
    return MMDetMaxIoUAssigner(pos_iou_thr, neg_iou_thr, min_pos_iou, **settings)


def mmdet_but_for_d13(min_pos_iou=0.0, **settings):
    """The least positive bound keeps mmdet from giving anchors to a box that overlaps none."""
    return mmdet(min_pos_iou=min_pos_iou or 1e-12, **settings)


def top(k):
    """The first k of the ten rows of TEN."""
    return [0, 0, 10, k]


@pytest.mark.parametrize(
    ("anchors", "boxes", "changes", "expected"),
    [
        ([TEN, top(5)], [top(5)], {}, [1, 1]),  # IoU .5 is positive
        ([TEN, top(4)], [top(4)], {}, [-1, 1]),  # IoU .4 is ignored
        ([TEN, top(3)], [top(3)], {}, [0, 1]),  # below .4 is background
        ([TEN, FAR], [top(3)], {}, [1, 0]),  # the best anchor of a box, however bad
        ([TEN, FAR], [top(3)], {"match_low_quality": False}, [0, 0]),  # but not without that rule
        ([TEN], [top(4)], {"match_low_quality": False}, [-1]),
        ([TEN], [top(3)], {"min_pos_iou": 0.3}, [1]),  # the bound itself is enough
        ([TEN], [top(3)], {"min_pos_iou": 0.31}, [0]),
        # float32(.7) < .7, but thresholds are compared in the type of the IoUs
        ([TEN], [top(7)], {"min_pos_iou": 0.7, "pos_iou_thr": 0.9}, [1]),
        ([TEN, TEN], [top(3)], {}, [1, 1]),  # all anchors of the best IoU
        ([FAR, TEN, TEN], [top(3)], {"gt_max_assign_all": False}, [0, 1, 0]),  # the first of them
        ([TEN], [top(6), top(6)], {"match_low_quality": False}, [1]),  # first of equal boxes
        ([TEN], [top(6), top(6)], {}, [2]),  # by the rule of RPN later boxes overwrite
        ([TEN], [top(9), top(2)], {}, [2]),  # even where they overlap less
        ([TEN], [top(6), top(9), top(7)], {"match_low_quality": False}, [2]),  # the nearest box
        ([TEN], [TEN], {}, [1]),  # one anchor
        ([TEN, FAR], [], {}, [0, 0]),  # no box
        ([], [TEN], {}, []),  # no anchor
        ([], [], {}, []),
    ],
)
def test_rule_on_hand_made_anchors(anchors, boxes, changes, expected):
    for what, assigner in every_way(**changes).items():
        found = assign(assigner, anchors, boxes)
        assert found.gt_inds.tolist() == expected, what
        assert found.labels.tolist() == [i - 1 if i > 0 else -1 for i in expected]
        assert_same(found, assign(mmdet(**changes), anchors, boxes), what)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[200, 200, 210, 210]], [0, 0, 0]),  # outside of every anchor
        ([[5, 5, 5, 5]], [0, 0, 0]),  # zero area, though inside an anchor
        ([[8, 8, 2, 2]], [0, 0, 0]),  # corners the wrong way round
        ([top(9), [200, 200, 210, 210]], [1, 0, 0]),  # does not take from other boxes
        ([[10, 0, 20, 10]], [0, 0, 0]),  # touches an edge
    ],
)
def test_d13_a_box_that_overlaps_no_anchor_gets_none(boxes, expected):
    anchors = [TEN, FAR, [50, 50, 60, 60]]
    theirs = assign(mmdet(), anchors, boxes)
    assert (theirs.gt_inds == len(boxes)).sum() >= 2  # every anchor of IoU 0
    for what, assigner in every_way().items():
        found = assign(assigner, anchors, boxes)
        assert found.gt_inds.tolist() == expected, what
        assert torch.equal(found.max_overlaps, theirs.max_overlaps)
        assert (found.labels >= 0).tolist() == [i > 0 for i in expected]


HALF_CROWDED = [5, 0, 30, 10]  # half of TEN


@pytest.mark.parametrize(
    ("crowds", "changes", "expected"),
    [
        ([HALF_CROWDED], {"ignore_iof_thr": -1}, [1, 0]),  # off
        ([HALF_CROWDED], {"ignore_iof_thr": 0.5}, [1, 0]),  # half is not more than half
        ([HALF_CROWDED], {"ignore_iof_thr": 0.4}, [-1, 0]),
        ([[0, 0, 5, 10], HALF_CROWDED], {"ignore_iof_thr": 0.4}, [-1, 0]),  # not their union
        ([[0, 0, 5, 10], HALF_CROWDED], {"ignore_iof_thr": 0.6}, [1, 0]),
        ([[4, 4, 6, 6]], {"ignore_iof_thr": 0.5}, [1, 0]),  # a crowd inside an anchor is small
        # but all of it is inside the anchor
        ([[4, 4, 6, 6]], {"ignore_iof_thr": 0.5, "ignore_wrt_candidates": False}, [-1, 0]),
        ([[0, 0, 100, 100]], {"ignore_iof_thr": 0.5}, [-1, -1]),  # all anchors ignored
        ([], {"ignore_iof_thr": 0.5}, [1, 0]),
    ],
)
def test_anchors_in_crowds_are_ignored(crowds, changes, expected):
    for what, assigner in every_way(**changes).items():
        found = assign(assigner, [TEN, FAR], [top(9)], crowds=crowds)
        assert found.gt_inds.tolist() == expected, what
        theirs = mmdet_but_for_d13(**changes)
        assert_same(found, assign(theirs, [TEN, FAR], [top(9)], crowds=crowds), what)


def test_without_a_box_crowds_are_background_as_in_mmdet():
    found = assign(MaxIoUAssigner(ignore_iof_thr=0.5), [TEN], [], crowds=[TEN])
    assert_same(found, assign(mmdet(ignore_iof_thr=0.5), [TEN], [], crowds=[TEN]))
    assert found.gt_inds.tolist() == [0]


def test_one_class():
    found = assign(MaxIoUAssigner(), [TEN, FAR], [TEN, FAR], labels=[0, 0])
    assert found.labels.tolist() == [0, 0]


def pyramid(height=480, width=640):
    sizes = [(-(-height // s), -(-width // s)) for s in (8, 16, 32, 64, 128)]
    return torch.cat(AnchorGenerator().grid_priors(sizes, device="cpu"))


def integer_boxes(number, seed, height=480, width=640):
    """Boxes that begin at multiples of 8 and some of them twice, so that many IoUs are equal."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(1, 20, (number, 2), generator=generator) * 8
    corner = torch.randint(0, 40, (number, 2), generator=generator) * 8
    boxes = torch.cat([corner, corner + sides], dim=1).float()
    boxes[number // 2 :][::3] = boxes[: number - number // 2][::3]
    return boxes


@pytest.mark.parametrize(("number", "seed"), [(1, 0), (7, 1), (30, 2), (100, 3)])
def test_equals_mmdet_on_a_pyramid(number, seed):
    anchors, boxes = pyramid(), integer_boxes(number, seed)
    expected = assign(mmdet(), anchors, boxes)
    assert expected.gt_inds.max() > 0
    assert_same(assign(MaxIoUAssigner(), anchors, boxes), expected)
    for size in BOXES_PER_BLOCK:
        in_blocks = BlockAssigner()
        in_blocks.boxes_per_block = size
        assert_same(assign(in_blocks, anchors, boxes), expected, size)


@pytest.mark.parametrize("wrt_candidates", [True, False])
@pytest.mark.parametrize("assign_all", [True, False])
def test_equals_mmdet_on_a_pyramid_with_crowds(wrt_candidates, assign_all):
    changes = dict(
        ignore_iof_thr=0.5, ignore_wrt_candidates=wrt_candidates, gt_max_assign_all=assign_all
    )
    anchors, boxes, crowds = pyramid(), integer_boxes(20, 4), integer_boxes(3, 5)
    expected = assign(mmdet(min_pos_iou=0.01, **changes), anchors, boxes, crowds=crowds)
    assert (expected.max_overlaps == -1).any()
    for assigner in (MaxIoUAssigner, BlockAssigner):
        found = assign(assigner(min_pos_iou=0.01, **changes), anchors, boxes, crowds=crowds)
        assert_same(found, expected)


def grid_boxes(max_size):
    """Boxes on a grid of 7 x 7 points, zero sides included: ties are the rule."""
    point = st.integers(0, 6)
    box = st.tuples(point, point, point, point).map(
        lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
    )
    return st.lists(box, max_size=max_size)


@settings(max_examples=200, deadline=None)
@given(
    anchors=grid_boxes(8),
    boxes=grid_boxes(6),
    crowds=grid_boxes(3),
    changes=st.fixed_dictionaries(
        {
            "pos_iou_thr": st.sampled_from([0.5, 0.7, 1.0]),
            "neg_iou_thr": st.sampled_from([0.0, 0.4, 0.5]),
            "min_pos_iou": st.sampled_from([0.0, 0.25, 0.3, 0.5]),
            "match_low_quality": st.booleans(),
            "gt_max_assign_all": st.booleans(),
            "ignore_iof_thr": st.sampled_from([-1, 0.25, 0.5, 1.0]),
            "ignore_wrt_candidates": st.booleans(),
        }
    ),
)
def test_equals_mmdet_on_a_grid_but_for_d13(anchors, boxes, crowds, changes):
    expected = assign(mmdet_but_for_d13(**changes), anchors, boxes, crowds=crowds)
    for what, assigner in every_way(**changes).items():
        assert_same(assign(assigner, anchors, boxes, crowds=crowds), expected, what)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    anchors, boxes = pyramid(96, 128).to(dtype), integer_boxes(5, 6, 96, 128).to(dtype)
    expected = assign(MaxIoUAssigner(), anchors.float(), boxes.float())
    assert expected.max_overlaps.dtype == torch.float
    for assigner in (MaxIoUAssigner(), BlockAssigner()):
        assert_same(assign(assigner, anchors, boxes, dtype=dtype), expected)


def test_large_boxes_do_not_overflow_in_half():
    """An area of 800 x 800 pixels is beyond half precision."""
    found = assign(MaxIoUAssigner(), [[0, 0, 800, 800]], [[0, 0, 800, 800]], dtype=torch.half)
    assert found.max_overlaps.tolist() == [1.0]


def test_double_stays_double():
    boxes = integer_boxes(5, 7, 96, 128).double() + 0.1
    anchors = pyramid(96, 128).double()
    expected = assign(mmdet(), anchors, boxes, dtype=torch.double)
    assert_same(assign(MaxIoUAssigner(), anchors, boxes, dtype=torch.double), expected)


def test_inputs_are_left_alone_and_no_gradient_is_kept():
    anchors, boxes = rows([TEN]).requires_grad_(), rows([top(6)])
    before = anchors.detach().clone(), boxes.clone()
    for assigner in (MaxIoUAssigner(ignore_iof_thr=0.5), BlockAssigner(ignore_iof_thr=0.5)):
        found = assign(assigner, anchors, boxes, crowds=[TEN])
        assert not found.max_overlaps.requires_grad
        assert torch.equal(anchors, before[0])
        assert torch.equal(boxes, before[1])


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operator returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else [result]
        for tensor in results:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(
    ("boxes_per_block", "largest"),
    # in values for each anchor: four coordinates, or three buffers of a block's IoUs
    [(None, 4), (1, 4), (5, 15)],
)
def test_the_matrix_of_all_pairs_never_exists(boxes_per_block, largest):
    anchors, boxes = pyramid()[:50_000], integer_boxes(200, 8)
    assigner = MaxIoUAssigner(ignore_iof_thr=0.5)
    if boxes_per_block:
        assigner = BlockAssigner(ignore_iof_thr=0.5)
        assigner.boxes_per_block = boxes_per_block
    pred, truth = InstanceData(priors=anchors), InstanceData(bboxes=boxes, labels=torch.arange(200))
    with LargestTensor() as mode:
        assigner.assign(pred, truth, InstanceData(bboxes=boxes[:50]))
    assert 0 < mode.elements <= largest * len(anchors)


def test_a_block_holds_no_more_pairs_than_stated():
    assert MaxIoUAssigner.PAIRS_PER_BLOCK * 13 <= 64 * 2**20
    assigner = MaxIoUAssigner()
    assigner.PAIRS_PER_BLOCK = 350
    assigner._match = assigner._match_in_blocks
    anchors, boxes = pyramid()[:100], integer_boxes(20, 9)
    pred, truth = InstanceData(priors=anchors), InstanceData(bboxes=boxes, labels=torch.arange(20))
    with LargestTensor() as mode:
        assigner.assign(pred, truth)
    assert mode.elements <= max(3 * 350, 4 * len(anchors))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_mmdet_there():
    anchors, boxes = pyramid().cuda(), integer_boxes(100, 10).cuda()
    pred = InstanceData(priors=anchors)
    truth = InstanceData(bboxes=boxes, labels=torch.arange(100, device="cuda"))
    assert_same(MaxIoUAssigner().assign(pred, truth), mmdet().assign(pred, truth))


def test_config_builds_it_with_the_paper_as_default():
    built = TASK_UTILS.build(dict(type="fldet.MaxIoUAssigner"))
    assert isinstance(built, MaxIoUAssigner)
    assert (built.pos_iou_thr, built.neg_iou_thr, built.min_pos_iou) == (0.5, 0.4, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_iou_thr": 1.1}, r"pos_iou_thr must be in \(0, 1\], got 1.1"),
        ({"pos_iou_thr": 0}, r"pos_iou_thr must be in \(0, 1\], got 0"),
        ({"pos_iou_thr": float("nan")}, "pos_iou_thr must be .* got nan"),
        ({"neg_iou_thr": 0.6}, r"neg_iou_thr must be in \[0, pos_iou_thr\], got 0.6 with .* 0.5"),
        ({"neg_iou_thr": -0.1}, "neg_iou_thr must be .* got -0.1"),
        ({"min_pos_iou": 2}, r"min_pos_iou must be in \[0, 1\], got 2"),
        ({"ignore_iof_thr": 0}, r"ignore_iof_thr must be negative or in \(0, 1\], got 0"),
        ({"ignore_iof_thr": 1.5}, "ignore_iof_thr must be .* got 1.5"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        MaxIoUAssigner(**changes)
