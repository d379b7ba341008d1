import importlib
import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mmcv", reason="mmcv is not installed")

from fldet._compat import silence_imports
from fldet.errors import UnavailableError
from fldet.ops import mmcv_ext as fallback
from fldet.ops.nms import has_compiled_mmcv

needs_compiled = pytest.mark.skipif(not has_compiled_mmcv(), reason="mmcv has no compiled _ext")
needs_fallback = pytest.mark.skipif(has_compiled_mmcv(), reason="the compiled mmcv._ext is in use")
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """Imports what the tests need, whose warnings are not ours; one thread is the fastest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with silence_imports():
        importlib.import_module("mmcv.ops")
        if importlib.util.find_spec("mmdet"):
            importlib.import_module("mmdet.models")
            importlib.import_module("mmdet.utils").register_all_modules()
    yield
    torch.set_num_threads(threads)


def test_mmcv_ext_has_a_real_spec():
    ext = importlib.import_module("mmcv._ext")
    assert importlib.util.find_spec("mmcv._ext") is not None  # raises where __spec__ is None
    assert ext.__spec__.name == "mmcv._ext"
    assert Path(ext.__spec__.origin).is_file()
    assert (ext.__spec__.origin == fallback.__file__) != has_compiled_mmcv()


def test_mmcv_ops_can_be_imported():
    ops = importlib.import_module("mmcv.ops")
    assert callable(ops.nms)
    assert callable(ops.deform_conv2d)  # one of the many that only raise when called


class TestStubs:
    def test_raises_with_what_to_install(self):
        with pytest.raises(UnavailableError, match="operator ms_deform_attn_forward") as error:
            fallback.ms_deform_attn_forward(1, im2col_step=2)
        assert "--no-build-isolation" in error.value.hint

    @needs_fallback
    def test_raises_through_mmcv(self):
        from mmcv.ops import soft_nms

        with pytest.raises(UnavailableError, match="operator softnms needs mmcv with compiled"):
            soft_nms(torch.zeros(1, 4), torch.zeros(1))

    def test_maximum_pooling_is_refused(self):
        empty = torch.zeros(0)
        with pytest.raises(UnavailableError, match="pool_mode='max'"):
            fallback.roi_align_forward(*[empty] * 5, 1, 1, 1.0, 0, 0, True)

    def test_pickles(self):
        assert pickle.loads(pickle.dumps(fallback.softnms)) is fallback.softnms
        assert pickle.loads(pickle.dumps(fallback.nms)) is fallback.nms

    @pytest.mark.parametrize("name", ["__path__", "__all__", "_private"])
    def test_other_names_are_missing(self, name):
        with pytest.raises(AttributeError, match=name):
            getattr(fallback, name)


# Few values, so that ties, duplicates and degenerate boxes are common.
COORDINATES = st.integers(-2, 8).map(float) | st.sampled_from([0.1, 7.7, INF, -INF, NAN])
SCORES = st.sampled_from([0.1, 0.5, 0.9, NAN, INF])
ROWS = st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES, SCORES)


def assert_nms_equal(table, threshold, offset):
    compiled = importlib.import_module("mmcv._ext")
    boxes, scores = table[:, :4].contiguous(), table[:, 4].contiguous()
    ours = fallback.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    theirs = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert ours.tolist() == theirs.tolist()


@needs_compiled
class TestEqualsTheCompiled:
    @given(
        st.lists(ROWS, max_size=60),
        st.sampled_from([-0.5, 0.0, 0.3, 0.5, 0.7, 1.0]),
        st.sampled_from([0, 1]),
    )
    def test_nms(self, rows, threshold, offset):
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        assert_nms_equal(table, threshold, offset)

    @pytest.mark.parametrize("num_scores", [1, 5, 1000], ids=lambda n: f"{n}-scores")
    @pytest.mark.parametrize("size", [3.0, 60.0])
    def test_nms_of_many_boxes(self, size, num_scores):
        generator = torch.Generator().manual_seed(0)
        for num_boxes in (16, 17, 100, 3000):
            corner = torch.rand(num_boxes, 2, generator=generator) * 300
            extent = torch.rand(num_boxes, 2, generator=generator) * size
            scores = torch.randint(num_scores, (num_boxes, 1), generator=generator) / num_scores
            table = torch.cat([corner, corner + extent, scores], dim=1)
            for threshold in (0.0, 0.3, 0.5, 0.7):
                assert_nms_equal(table, threshold, offset=0)

    @pytest.mark.parametrize("aligned", [True, False])
    @pytest.mark.parametrize("ratio", [0, 2])
    def test_roi_align(self, ratio, aligned):
        ours, theirs = (pool_and_pull_back(ext, ratio, aligned) for ext in (fallback, None))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def pool_and_pull_back(ext, ratio, aligned):
    """Pooled features and gradient by one ``_ext``; None is the one that mmcv has."""
    ext = ext or importlib.import_module("mmcv._ext")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 20, 25, generator=generator)
    corner = torch.rand(100, 2, generator=generator) * 170 - 5
    extent = torch.rand(100, 2, generator=generator) * 100
    image = torch.randint(2, (100, 1), generator=generator).float()
    rois = torch.cat([image, corner, corner + extent], dim=1)
    grad = torch.randn(100, 4, 7, 7, generator=generator)
    pooled, pulled, empty = torch.zeros_like(grad), torch.zeros_like(features), torch.zeros(0)
    options = {
        "aligned_height": 7,
        "aligned_width": 7,
        "spatial_scale": 0.125,
        "sampling_ratio": ratio,
        "pool_mode": 1,
        "aligned": aligned,
    }
    ext.roi_align_forward(features, rois, pooled, empty, empty, **options)
    ext.roi_align_backward(grad, rois, empty, empty, pulled, **options)
    return pooled, pulled


def test_ties_follow_the_unstable_sort_of_torch():
    scores = torch.zeros(64)
    boxes = torch.arange(64.0)[:, None] * 10 + torch.tensor([0.0, 0.0, 5.0, 5.0])  # all disjoint
    expected = scores.sort(0, descending=True).indices
    assert fallback.nms(boxes, scores, 0.5, 0).tolist() == expected.tolist()


def test_empty_inputs():
    assert fallback.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []
    empty = torch.zeros(0)
    pooled = torch.zeros(0, 3, 7, 7)
    options = (7, 7, 1.0, 0, 1, True)
    fallback.roi_align_forward(
        torch.ones(1, 3, 4, 4), torch.zeros(0, 5), pooled, empty, empty, *options
    )
    pulled = torch.zeros(1, 3, 4, 4)
    fallback.roi_align_backward(pooled, torch.zeros(0, 5), empty, empty, pulled, *options)
    assert pulled.abs().sum() == 0


@needs_fallback
class TestThroughMmcv:
    @pytest.mark.parametrize("ratio", [0, 2])
    def test_roi_align_gradient(self, ratio):
        from mmcv.ops import roi_align

        features = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
        rois = torch.tensor([[0, 1.0, 1.0, 4.5, 3.5], [0, -2, 0, 3, 9]], dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda x: roi_align(x, rois, (2, 2), 1.0, ratio, "avg", True), (features,)
        )

    def test_focal_loss_gradient(self):
        from mmcv.ops import sigmoid_focal_loss

        logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
        target = torch.tensor([0, 2, 3, 1])
        assert torch.autograd.gradcheck(
            lambda x: sigmoid_focal_loss(x, target, 2.0, 0.25, None, "sum"), (logits,)
        )

    def test_half_types(self):
        from mmcv.ops import roi_align, sigmoid_focal_loss

        rois = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]]).half()
        pooled = roi_align(torch.ones(1, 1, 4, 4).half(), rois, (1, 1), 1.0, 0, "avg", True)
        assert pooled.dtype == torch.float16
        assert pooled.item() == 1
        loss = sigmoid_focal_loss(torch.zeros(1, 1).half(), torch.tensor([0]), 0.0, 0.5)
        assert loss.dtype == torch.float16


@pytest.mark.parametrize(
    ("weight", "factors", "reason"),
    [
        ([], [1, 1, 1, 1], "no weight"),
        ([2.0, 3.0, 5.0], [2, 5, 1, 1], "of the row's class; background counts once"),
    ],
)
def test_focal_loss_equals_the_formula(weight, factors, reason):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 2, 3, -1])  # 3 and -1 are background
    positive = torch.zeros(4, 3, dtype=torch.bool)
    positive[0, 0] = positive[1, 2] = True
    probs = logits.sigmoid()
    p_t, alpha_t = torch.where(positive, probs, 1 - probs), torch.where(positive, 0.25, 0.75)
    expected = -alpha_t * (1 - p_t) ** 2 * p_t.log() * torch.tensor(factors)[:, None]
    loss = torch.empty_like(logits)
    fallback.sigmoid_focal_loss_forward(
        logits, target, torch.tensor(weight, dtype=torch.float64), loss, gamma=2.0, alpha=0.25
    )
    torch.testing.assert_close(loss, expected, msg=lambda text: f"{reason}: {text}")


def test_torch_compile_leaves_the_operators_alone():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]])
    scores = torch.tensor([0.1, 0.9, 0.5])
    compiled = torch.compile(lambda b, s: fallback.nms(b + 0, s, 0.5, 0) + 0, backend="eager")
    assert compiled(boxes, scores).tolist() == [1, 2]


def faster_rcnn():
    """A Faster R-CNN R18-FPN with few channels, and random weights."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.utils import get_installed_path

    path = Path(get_installed_path("mmdet"), ".mim/configs/_base_/models/faster-rcnn_r50_fpn.py")
    config = Config.fromfile(path).model
    config.backbone.update(depth=18, base_channels=8, init_cfg=None)
    config.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    config.rpn_head.update(in_channels=16, feat_channels=16)
    config.roi_head.bbox_roi_extractor.out_channels = 16
    config.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    config.test_cfg.rcnn.score_thr = 0.0
    torch.manual_seed(0)
    return MODELS.build(config)


def test_faster_rcnn_trains_and_predicts(monkeypatch):
    pytest.importorskip("mmdet", reason="mmdet is not installed")
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    results = []
    for ext in (importlib.import_module("mmcv._ext"), fallback):
        for name in ("nms", "roi_align"):
            monkeypatch.setattr(importlib.import_module(f"mmcv.ops.{name}"), "ext_module", ext)
        model = faster_rcnn()
        shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), (96, 128))
        sample = DetDataSample(metainfo={**shapes, "scale_factor": (1.0, 1.0)})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10, 60, 70]]), labels=torch.tensor([1])
        )
        images = torch.linspace(-2, 2, 3 * 96 * 128).view(1, 3, 96, 128).sin()
        torch.manual_seed(1)  # the samplers draw
        losses = model.loss(images, [sample])
        total, _ = model.parse_losses(losses)
        total.backward()
        with torch.no_grad():
            (prediction,) = model.eval().predict(images, [sample])
        found = prediction.pred_instances
        assert len(found) > 0
        results.append((total.detach(), found.bboxes, found.scores, found.labels))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
