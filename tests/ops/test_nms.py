import sys
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fldet._compat import silence_imports
from fldet.errors import UnavailableError
from fldet.ops import active_backend, batched_nms, nms
from fldet.ops import roi_align as roi_align_function
from fldet.ops.nms import (
    BACKENDS,
    _keep_by_blocks,
    _keep_by_sweep,
    keep_without_mmcv,
    nms_backend,
)

nms_module = sys.modules["fldet.ops.nms"]  # the name fldet.ops.nms is the function
INF, NAN = float("inf"), float("nan")

UNIT = [0, 0, 10, 10]
SHIFTED = [5, 0, 15, 10]  # IoU with UNIT is 50 / 150 = 1 / 3
THIRD = float(np.float32(50) / np.float32(150))
INVERTED = [10, 10, 0, 0]


def greedy(boxes, scores, threshold, offset=0, order=None):
    """The definition, one box after the other, in float32."""
    boxes, threshold = boxes.float().numpy(), np.float32(threshold)
    if order is None:
        order = scores.sort(descending=True, stable=True).indices
    kept = []
    with np.errstate(all="ignore"):
        for i in order.tolist():
            if not (float32_iou(boxes[kept].T, boxes[i], offset) > threshold).any():
                kept.append(i)
    return kept


def float32_iou(a, b, offset):
    one, zero = np.float32(offset), np.float32(0)
    width = np.maximum(np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]) + one, zero)
    height = np.maximum(np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]) + one, zero)
    area_a = (a[2] - a[0] + one) * (a[3] - a[1] + one)
    area_b = (b[2] - b[0] + one) * (b[3] - b[1] + one)
    return width * height / (area_a + area_b - width * height)


@pytest.fixture(params=BACKENDS)
def backend(request):
    if not nms_module._nms_works(request.param, "cpu"):
        pytest.skip(f"{request.param} with a working nms is not installed")
    return request.param


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "expected", "reason"),
    [
        ([UNIT], [0.5], 0.5, [0], "one box stays"),
        ([UNIT, UNIT], [0.1, 0.9], 0.5, [1], "the higher score wins"),
        ([UNIT, SHIFTED], [0.1, 0.9], 0.3, [1], "above the threshold goes"),
        ([UNIT, SHIFTED], [0.1, 0.9], 0.4, [1, 0], "below stays, in descending score order"),
        ([UNIT, SHIFTED], [0.9, 0.1], THIRD, [0, 1], "exactly at the threshold stays"),
        ([UNIT, SHIFTED], [0.9, 0.1], 1 / 3, [0, 1], "the threshold is rounded to float32"),
        ([UNIT, UNIT], [0.9, 0.1], 1.0, [0, 1], "no IoU is above 1"),
        ([UNIT, [10, 0, 20, 10]], [0.9, 0.1], 0.0, [0, 1], "touching is not overlapping"),
        ([UNIT, SHIFTED], [0.9, 0.1], 0.0, [0], "any overlap is above 0"),
        ([UNIT, UNIT, UNIT], [0.5, 0.5, 0.5], 0.5, [0], "ties: the lower index"),
        ([UNIT, SHIFTED, UNIT], [0.5, 0.5, 0.9], 0.3, [2], "a tie behind a higher score"),
        (
            [UNIT, SHIFTED, [10, 0, 20, 10]],
            [0.9, 0.8, 0.7],
            0.3,
            [0, 2],
            "a suppressed box suppresses nothing",
        ),
        ([UNIT, INVERTED], [0.1, 0.9], 0.0, [1, 0], "an inverted box overlaps nothing"),
        ([INVERTED, INVERTED], [0.9, 0.1], 0.0, [0, 1], "not even its like"),
        ([[5, 5, 5, 5]] * 2, [0.9, 0.1], 0.0, [0, 1], "0 / 0 is NaN and suppresses nothing"),
        ([UNIT, [0, 0, NAN, 10]], [0.1, 0.9], 0.0, [1, 0], "a NaN box suppresses nothing"),
        ([[0, 0, INF, 10], UNIT], [0.9, 0.1], 0.0, [0, 1], "an infinite area: IoU 0"),
        ([UNIT, UNIT], [0.9, NAN], 0.5, [1], "a NaN score comes first"),
        ([UNIT, UNIT], [INF, -INF], 0.5, [0], "infinite scores are ordered"),
    ],
)
def test_nms_keeps(backend, boxes, scores, threshold, expected, reason):
    boxes, scores = torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores)
    keep = nms(boxes, scores, threshold, backend=backend)
    assert keep.dtype == torch.int64
    assert keep.tolist() == expected, reason


@pytest.mark.parametrize(
    ("offset", "expected", "reason"),
    [(0, [0, 1], "100 / 300 is not above 0.34"), (1, [0], "66 / 176 = 0.375 is")],
)
def test_offset_counts_the_last_pixel(offset, expected, reason):
    boxes = torch.tensor([UNIT, SHIFTED]).float()
    assert nms(boxes, torch.tensor([0.9, 0.1]), 0.34, offset=offset).tolist() == expected, reason


def test_empty_in_empty_out(backend):
    keep = nms(torch.empty(0, 4), torch.empty(0), 0.5, backend=backend)
    assert keep.shape == (0,)
    assert keep.dtype == torch.int64
    labels = torch.empty(0, dtype=torch.int64)
    keep = batched_nms(torch.empty(0, 4), torch.empty(0), labels, 0.5, backend=backend)
    assert keep.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_other_types_are_computed_in_float32(backend, dtype):
    boxes = torch.tensor([UNIT, SHIFTED, [200, 200, 250, 250]], dtype=dtype)
    scores = torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
    assert nms(boxes, scores, 0.3, backend=backend).tolist() == [2, 0]


def test_a_box_that_requires_grad_is_accepted(backend):
    boxes = torch.tensor([UNIT, UNIT]).float().requires_grad_()
    scores = torch.tensor([0.9, 0.1], requires_grad=True)
    assert nms(boxes, scores, 0.5, backend=backend).tolist() == [0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"boxes": torch.zeros(2, 5)}, r"boxes of shape \(N, 4\), got \(2, 5\)"),
        ({"boxes": torch.zeros(4)}, r"boxes of shape \(N, 4\), got \(4,\)"),
        ({"scores": torch.zeros(3)}, r"scores of shape \(2,\), got \(3,\)"),
        ({"scores": torch.zeros(2, 1)}, r"scores of shape \(2,\), got \(2, 1\)"),
        ({"iou_threshold": 1.5}, r"iou_threshold must be in \[0, 1\], got 1.5"),
        ({"iou_threshold": NAN}, r"iou_threshold must be in \[0, 1\], got nan"),
        ({"offset": 2}, "offset must be 0 or 1, got 2"),
        ({"backend": "opencv"}, "one of mmcv, torchvision, fldet, got 'opencv'"),
    ],
)
def test_wrong_arguments_are_named(change, match):
    arguments = {"boxes": torch.zeros(2, 4), "scores": torch.zeros(2), "iou_threshold": 0.5}
    with pytest.raises(ValueError, match=match):
        nms(**arguments | change)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": torch.zeros(3)}, r"labels of shape \(2,\), got \(3,\)"),
        ({"max_keep": -1}, "max_keep must be None or >= 0, got -1"),
    ],
)
def test_wrong_arguments_of_batched_nms_are_named(change, match):
    arguments = {
        "boxes": torch.zeros(2, 4),
        "scores": torch.zeros(2),
        "labels": torch.zeros(2, dtype=torch.int64),
        "iou_threshold": 0.5,
    }
    with pytest.raises(ValueError, match=match):
        batched_nms(**arguments | change)


# Coordinates on a coarse grid, so that overlaps, duplicates and inverted boxes are common.
COORDINATES = st.integers(-3, 12).map(float) | st.sampled_from([0.1, 7.7, INF, -INF, NAN])
CASES = st.lists(
    st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES, st.sampled_from([0.1, 0.5, 0.9])),
    max_size=40,
)
THRESHOLDS = st.sampled_from([0.0, 0.3, 1 / 3, 0.5, 0.7, 1.0])


def tensors(case):
    table = torch.tensor(case, dtype=torch.float32).reshape(-1, 5)
    return table[:, :4], table[:, 4]


@given(CASES, THRESHOLDS, st.sampled_from([0, 1]))
def test_every_backend_is_the_definition(case, threshold, offset):
    boxes, scores = tensors(case)
    expected = greedy(boxes, scores, threshold, offset)
    for name in BACKENDS:
        if nms_module._nms_works(name, "cpu") and not (name == "torchvision" and offset):
            assert nms(boxes, scores, threshold, offset=offset, backend=name).tolist() == expected
    assert nms(boxes, scores, threshold, offset=offset).tolist() == expected


@pytest.mark.parametrize("algorithm", [_keep_by_sweep, _keep_by_blocks])
@settings(deadline=None)
@given(CASES, THRESHOLDS, st.sampled_from([0, 1]), st.integers(1, 5))
def test_both_algorithms_whatever_the_portions(algorithm, case, threshold, offset, block):
    boxes, scores = tensors(case)
    boxes = boxes[scores.sort(descending=True).indices]
    with mock.patch.multiple(nms_module, _BLOCK=block, _CPU_BLOCK=block, _MAX_PAIRS=2 * block):
        keep = algorithm(boxes, threshold, offset)
    expected = greedy(boxes, scores, threshold, offset, order=torch.arange(len(boxes)))
    if keep is not None:  # the sweep leaves crowds to the blocks
        assert keep.nonzero().flatten().tolist() == expected


@pytest.mark.parametrize(
    ("spread", "reason"),
    [(1000.0, "few overlaps: the sweep"), (20.0, "a crowd: the blocks")],
)
def test_many_boxes(backend, spread, reason):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1500, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + torch.rand(1500, 2, generator=generator) * 60], dim=1)
    scores = torch.rand(1500, generator=generator).mul(100).floor()  # about 15 boxes a tie
    assert (_keep_by_sweep(boxes, 0.5, 0) is None) == (spread == 20.0), reason
    assert nms(boxes, scores, 0.5, backend=backend).tolist() == greedy(boxes, scores, 0.5)


def test_a_chain_of_boxes_is_settled_one_by_one(backend):
    left = torch.arange(600.0)[:, None] * 4
    boxes = torch.cat([left, left * 0, left + 10, left * 0 + 10], dim=1)  # neighbours: IoU 6 / 14
    keep = nms(boxes, torch.arange(600.0, 0, -1), 0.4, backend=backend)
    assert keep.tolist() == list(range(0, 600, 2))


def test_classes_do_not_suppress_each_other(backend):
    boxes = torch.tensor([UNIT] * 4).float()
    labels = torch.tensor([0, 1, 0, 79])
    scores = torch.tensor([0.6, 0.9, 0.8, 0.7])
    assert batched_nms(boxes, scores, labels, 0.5, backend=backend).tolist() == [1, 2, 3]
    keep = batched_nms(boxes, scores, labels, 0.5, max_keep=2, backend=backend)
    assert keep.tolist() == [1, 2]
    assert batched_nms(boxes, scores, labels, 0.5, max_keep=0).tolist() == []


@pytest.mark.parametrize(
    ("boxes", "labels", "expected", "reason"),
    [
        ([[-40, 0, -20, 10], [-19, 0, 1, 10]], [1, 0], [0, 1], "mmcv's offset of 2 would mix them"),
        ([UNIT, UNIT, [0, 0, NAN, 9]], [1, 1, 0], [0, 2], "NaN leaves the others alone"),
        ([UNIT, UNIT, [0, 0, INF, 9]], [1, 1, 0], [0, 2], "so does infinity"),
    ],
)
def test_class_offsets_of_odd_boxes(backend, boxes, labels, expected, reason):
    scores = torch.linspace(0.9, 0.1, len(boxes))
    keep = batched_nms(
        torch.tensor(boxes).float(), scores, torch.tensor(labels), 0.0, backend=backend
    )
    assert keep.tolist() == expected, reason


def random_detections(num_boxes, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num_boxes, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + torch.rand(num_boxes, 2, generator=generator) * 60], dim=1)
    labels = torch.randint(5, (num_boxes,), generator=generator)
    return boxes, torch.randperm(num_boxes, generator=generator) / num_boxes, labels


def test_batched_nms_is_nms_class_by_class(backend):
    boxes, scores, labels = random_detections(400, seed=1)
    expected = []
    for label in range(5):
        index = (labels == label).nonzero().flatten()
        expected += index[greedy(boxes[index], scores[index], 0.5)].tolist()
    expected.sort(key=lambda i: -scores[i])
    assert batched_nms(boxes, scores, labels, 0.5, backend=backend).tolist() == expected


def test_batched_nms_equals_that_of_mmcv(backend):
    with silence_imports():
        mmcv_nms = pytest.importorskip("mmcv.ops.nms", reason="mmcv is not installed")
    boxes, scores, labels = random_detections(500, seed=2)
    _, expected = mmcv_nms.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5})
    assert batched_nms(boxes, scores, labels, 0.5, backend=backend).tolist() == expected.tolist()


@pytest.fixture
def fresh_choice(monkeypatch):
    """Forgets which backends work, and hides a compiled mmcv."""
    caches = nms_module._nms_works, sys.modules["fldet.ops.roi_align"]._roi_align_works
    monkeypatch.setattr(nms_module, "has_compiled_mmcv", lambda: False)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def fake_torchvision(monkeypatch, nms_function):
    ops = ModuleType("torchvision.ops")
    ops.nms = nms_function
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)


def raise_missing_operator(*_):
    raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize(
    ("function", "expected", "reason"),
    [
        (raise_missing_operator, "fldet", "built for another torch"),
        (lambda boxes, *_: torch.arange(len(boxes)), "fldet", "runs, with a wrong result"),
        (lambda *_: torch.tensor([0]), "torchvision", "right on the trial boxes"),
    ],
)
def test_torchvision_is_used_only_if_it_works(
    monkeypatch, fresh_choice, function, expected, reason
):
    fake_torchvision(monkeypatch, function)
    assert nms_backend() == expected, reason
    assert active_backend()["nms"] == expected


def test_a_backend_that_does_not_work_can_not_be_forced(monkeypatch, fresh_choice):
    fake_torchvision(monkeypatch, raise_missing_operator)
    two, scores = torch.zeros(2, 4), torch.zeros(2)
    for name in ("torchvision", "mmcv"):
        with pytest.raises(UnavailableError, match=rf"nms: the backend '{name}' is not installed"):
            nms(two, scores, 0.5, backend=name)
    with pytest.raises(UnavailableError, match=r"Hint: pip install --no-build-isolation"):
        roi_align_function(torch.zeros(1, 1, 2, 2), torch.zeros(1, 5), 1, backend="mmcv")


def test_torchvision_is_passed_over_for_an_offset_it_cannot_do(monkeypatch, fresh_choice):
    fake_torchvision(monkeypatch, lambda *_: torch.tensor([0]))
    boxes, scores = torch.tensor([UNIT, SHIFTED]).float(), torch.tensor([0.9, 0.1])
    assert nms(boxes, scores, 0.5, offset=1).tolist() == [0, 1]
    with pytest.raises(ValueError, match="offset 0 only, got 1"):
        nms(boxes, scores, 0.5, offset=1, backend="torchvision")


def test_the_stand_in_for_mmcv_uses_a_torchvision_that_works(monkeypatch, fresh_choice):
    far_apart = torch.tensor([UNIT, UNIT]).float() + torch.tensor([[0.0], [50.0]])
    assert keep_without_mmcv(far_apart, 0.5).tolist() == [0, 1]
    fake_torchvision(monkeypatch, lambda *_: torch.tensor([0]))
    nms_module._nms_works.cache_clear()
    assert keep_without_mmcv(far_apart, 0.5).tolist() == [0]
    assert keep_without_mmcv(far_apart, 0.5, offset=1).tolist() == [0, 1]


def test_active_backend_names_what_is_there():
    names = active_backend()
    assert set(names) == {"nms", "roi_align", "sigmoid_focal_loss"}
    assert set(names.values()) <= {"mmcv (compiled)", "torchvision", "fldet"}
