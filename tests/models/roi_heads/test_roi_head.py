"""Faster R-CNN+++: each option against what it must equal."""

import copy

import pytest
import torch
from mmdet.models.layers import multiclass_nms
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from fldet.config.load import load_config
from fldet.errors import ConfigError
from fldet.models.detectors.faster_rcnn import resized
from fldet.models.roi_heads.boxes import vote
from fldet.registry import MODELS

SIZES = ((96, 131), (80, 64))
PLUS = {"type": "fldet.RoIHead"}
SCALES = {"test_scales": [80, 160, 240], "input_scale": 160, "scale_side": 40.0}


def built(**options):
    """The small C4 on Shapes, narrow, with options of its RoI head, and equal weights."""
    cfg = load_config("systems/shapes/faster_rcnn_r18_c4.py").model
    cfg.type = "fldet.FasterRCNN"
    cfg.backbone.base_channels = cfg.roi_head.shared_head.base_channels = 8
    cfg.rpn_head.update(in_channels=32, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 32
    cfg.roi_head.bbox_head.update(in_channels=64, num_classes=3)
    cfg.test_cfg.rpn.update(max_per_img=20, nms=dict(type="nms", iou_threshold=0.9))
    cfg.roi_head.update({**PLUS, **options})
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    with torch.no_grad():
        model.rpn_head.rpn_cls.weight.normal_(std=0.5)
        model.rpn_head.rpn_reg.weight.normal_(std=0.001)
        model.roi_head.bbox_head.fc_cls.weight.normal_(std=0.15)
        model.roi_head.bbox_head.fc_cls.weight[3] = 0  # background
        model.roi_head.bbox_head.fc_reg.weight.normal_(std=0.03)
    return model


def with_options(model, **options):
    """The same model, weights included, with other options that have no weights."""
    copied = copy.deepcopy(model)
    for name, value in options.items():
        setattr(copied.roi_head, name, value)
    return copied


def samples(boxes=0):
    made = []
    for height, width in SIZES:
        meta = {"img_shape": (height, width), "ori_shape": (2 * height, 2 * width)}
        sample = DetDataSample(metainfo={**meta, "scale_factor": (0.5, 0.5), "img_id": 0})
        corner = torch.arange(2 * boxes).view(boxes, 2) * 7.0
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + 30], 1), labels=torch.arange(boxes) % 3
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        made.append(sample)
    return made


def batch(boxes=0):
    generator = torch.Generator().manual_seed(3)
    draw = {"dtype": torch.uint8, "generator": generator}
    images = [torch.randint(0, 256, (3, *size), **draw) for size in SIZES]
    return {"inputs": images, "data_samples": samples(boxes)}


@torch.no_grad()
def detections(model):
    return [one.pred_instances for one in model.test_step(batch())]


def assert_same(found, expected, atol=1e-4):
    for mine, other in zip(found, expected, strict=True):
        assert torch.equal(mine.labels, other.labels)
        torch.testing.assert_close(mine.scores, other.scores, rtol=0, atol=atol)
        torch.testing.assert_close(mine.bboxes, other.bboxes, rtol=0, atol=100 * atol)


@torch.no_grad()
def parts(model):
    """Maps, proposals, and what the images are, of the batch."""
    data = model.data_preprocessor(batch(), False)
    maps = model.extract_feat(data["inputs"])
    proposals = model.rpn_head.predict(maps, data["data_samples"], rescale=False)
    return data["inputs"], maps, proposals, [one.metainfo for one in data["data_samples"]]


# --- without options ---


def test_without_options_it_is_mmdetections():
    ours, theirs = built(), built(type="StandardRoIHead")
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for mine, other in zip(detections(ours), detections(theirs), strict=True):
        assert len(other) > 3
        assert all(torch.equal(mine[name], other[name]) for name in ("bboxes", "scores", "labels"))


# --- refinement and voting ---


@pytest.mark.parametrize("vote_iou", [None, 0.5])
def test_refining_by_deltas_of_zero_changes_nothing(vote_iou):
    model = built(vote_iou=vote_iou)
    torch.nn.init.zeros_(model.roi_head.bbox_head.fc_reg.weight)
    torch.nn.init.zeros_(model.roi_head.bbox_head.fc_reg.bias)
    expected = detections(model)
    assert min(map(len, expected)) > 3
    assert_same(detections(with_options(model, refine=1)), expected)
    assert_same(detections(with_options(model, refine=3)), expected)


@torch.no_grad()
def test_one_refinement_is_a_second_call_from_the_regressed_boxes():
    model = built(refine=1)
    head, (_, maps, proposals, metas) = model.roi_head, parts(model)
    expected = []
    for index, meta in enumerate(metas):  # image by image, and by a loop over the regions
        one = tuple(level[index : index + 1] for level in maps)
        rois = bbox2roi([proposals[index].bboxes])
        first = head._bbox_forward(one, rois)
        boxes = decoded(head, rois, first["bbox_pred"], meta)
        best = first["cls_score"].softmax(1)[:, :3].argmax(1)
        refined = bbox2roi([torch.stack([boxes[i, k] for i, k in enumerate(best)])])
        second = head._bbox_forward(one, refined)
        boxes = torch.cat([boxes, decoded(head, refined, second["bbox_pred"], meta)])
        scores = torch.cat([first["cls_score"], second["cls_score"]]).softmax(1)
        kept, labels = multiclass_nms(
            boxes.flatten(1) / 0.5, scores, 0.05, {"type": "nms", "iou_threshold": 0.3}, 100
        )
        expected.append(InstanceData(bboxes=kept[:, :4], scores=kept[:, 4], labels=labels))
    found = detections(model)
    assert_same(found, expected)
    plain = detections(with_options(model, refine=0))
    assert not all(a.scores.equal(b.scores) for a, b in zip(found, plain, strict=True))


def decoded(head, rois, deltas, meta):
    """(R, 3, 4) boxes of each class."""
    per_class = [
        head.bbox_head.bbox_coder.decode(
            rois[:, 1:], deltas[:, 4 * k : 4 * k + 4], meta["img_shape"]
        )
        for k in range(3)
    ]
    return torch.stack(per_class, dim=1)


@torch.no_grad()
def test_detections_are_moved_by_votes_of_all_boxes_of_their_class():
    model = built()
    head, (_, maps, proposals, metas) = model.roi_head, parts(model)
    rois = bbox2roi([one.bboxes for one in proposals])
    results, plain = head._bbox_forward(maps, rois), detections(model)
    moved = detections(with_options(model, vote_iou=0.5))
    of_images = rois[:, 0]
    for index, (mine, before, meta) in enumerate(zip(moved, plain, metas, strict=True)):
        rows = of_images == index
        boxes = decoded(head, rois[rows], results["bbox_pred"][rows], meta) / 0.5
        scores = results["cls_score"][rows].softmax(1)
        expected = vote(before.bboxes, boxes[:, before.labels], scores[:, before.labels], 0.5)
        torch.testing.assert_close(mine.bboxes, expected)
        assert torch.equal(mine.scores, before.scores)
        assert not torch.allclose(mine.bboxes, before.bboxes, atol=0.1)


def test_the_threshold_of_scores_moves_no_box():
    low = built(refine=1, vote_iou=0.5)
    high = copy.deepcopy(low)
    low.roi_head.test_cfg.score_thr, high.roi_head.test_cfg.score_thr = 0.0, 0.4
    for many, few in zip(detections(low), detections(high), strict=True):
        assert 0 < len(few) < len(many)
        torch.testing.assert_close(few.bboxes, many.bboxes[: len(few)])


# --- context ---


@torch.no_grad()
def test_the_context_of_a_region_that_is_the_whole_image_is_its_vector():
    model = built(context=True)
    head, (_, maps, _, metas) = model.roi_head, parts(model)
    whole = [torch.tensor([[0.0, 0, width, height]]) for height, width in SIZES]
    rois = bbox2roi([torch.cat([box, box / 2]) for box in whole])
    seen = []
    head.bbox_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head._bbox_forward(head._with_images(maps, metas), rois)
    regions, context = seen[0].flatten(1).chunk(2, dim=1)
    assert regions.shape == (4, 64)
    torch.testing.assert_close(regions[::2], context[::2])
    assert torch.equal(context[::2], context[1::2])
    assert not torch.allclose(regions[1::2], context[1::2], atol=1e-3)


def test_context_widens_the_two_layers_and_keeps_all_names():
    plain, wide = (built(context=context).state_dict() for context in (False, True))
    assert list(plain) == list(wide)
    different = {name: wide[name].shape for name in wide if wide[name].shape != plain[name].shape}
    start = "roi_head.bbox_head.fc_"
    assert different == {f"{start}cls.weight": (4, 128), f"{start}reg.weight": (12, 128)}


def test_context_of_zero_weight_is_no_context():
    plain, wide = built(), built(context=True)
    weights = wide.state_dict()
    for name, value in plain.state_dict().items():
        weights[name].zero_()
        weights[name][tuple(map(slice, value.shape))] = value
    assert_same(detections(wide), detections(plain))


@pytest.mark.parametrize("boxes", [0, 1, 3])
def test_context_learns_end_to_end(boxes):
    model = built(context=True).train()
    data = model.data_preprocessor(batch(boxes), True)
    with torch.no_grad():  # nothing but the context reaches the last layers
        for layer in (model.roi_head.bbox_head.fc_cls, model.roi_head.bbox_head.fc_reg):
            layer.weight[:, :64] = 0
    losses = model(**data, mode="loss")
    losses["loss_cls"].backward()
    for name in ("roi_head.shared_head.layer4.1.conv2", "backbone.conv1"):
        gradient = model.get_submodule(name).weight.grad
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0
    assert torch.isfinite(losses["loss_bbox"])


# --- scales ---


def test_two_equal_scales_are_one():
    plain = built()
    equal = built(test_scales=[160, 160], input_scale=160)
    equal.load_state_dict(plain.state_dict(), strict=True)
    assert_same(detections(equal), detections(plain))


@torch.no_grad()
def test_each_region_is_the_larger_of_two_scales():
    """Against a loop over the regions, each pooled alone from each of its scales."""
    model = built(**SCALES)
    head, (inputs, maps, proposals, _) = model.roi_head, parts(model)
    pyramid = model._pyramid(inputs, maps)
    rois = bbox2roi([one.bboxes for one in proposals])
    found, seen = head.vectors(pyramid, rois).flatten(1), set()
    for roi, vector in zip(rois, found, strict=True):
        image, x1, y1, x2, y2 = roi.tolist()
        index = 0 if ((x2 - x1) * (y2 - y1)) ** 0.5 > 40 else 1
        at_scales = []
        for factor, level in list(zip((0.5, 1.0, 1.5), pyramid, strict=True))[index : index + 2]:
            scaled = torch.tensor([[image, *(factor * value for value in (x1, y1, x2, y2))]])
            region = head.shared_head(head.bbox_roi_extractor((level,), scaled))
            at_scales.append(region.mean(dim=(2, 3))[0])
        torch.testing.assert_close(vector, torch.maximum(*at_scales))
        seen.add(index)
    assert seen == {0, 1}


@torch.no_grad()
def test_a_map_of_the_inputs_is_made_once_and_others_are_of_resized_inputs():
    model = built(**SCALES)
    inputs, maps, _, _ = parts(model)
    pyramid = model._pyramid(inputs, maps)
    assert pyramid[1] is maps[0]
    assert [tuple(level.shape[2:]) for level in pyramid] == [(3, 5), (6, 10), (9, 15)]
    ramp = torch.arange(64.0).expand(1, 1, 48, 64)  # pixel x has its centre at x + 1/2
    for factor in (0.5, 1.5, 1 / 3):
        small = resized(ramp, factor)
        middle = small[0, 0, 4, 2:-2]
        expected = (torch.arange(small.shape[3])[2:-2] + 0.5) / factor - 0.5
        torch.testing.assert_close(middle, expected)


def test_scales_need_the_detector_that_makes_their_maps():
    model = built(**SCALES)
    _, maps, proposals, _ = parts(model)
    with pytest.raises(ConfigError, match=r"test_scales: 1 maps for 3 scales") as caught:
        model.roi_head.predict(maps, proposals, samples())
    assert "fldet.FasterRCNN" in caught.value.hint


# --- all together, and wrong options ---


def everything(**more):
    return built(context=True, refine=1, vote_iou=0.5, **SCALES, **more)


def test_images_without_proposals_have_no_detections():
    model = everything()
    predict = model.rpn_head.predict

    def of_the_first(*args, **options):
        first, second = predict(*args, **options)
        return [first, second[:0]]

    expected = detections(model)
    model.rpn_head.predict = of_the_first
    found = detections(model)
    assert [len(one) for one in found] == [len(expected[0]), 0]
    assert_same(found[:1], expected[:1])
    model.rpn_head.predict = lambda *args, **options: [one[:0] for one in predict(*args, **options)]
    assert [len(one) for one in detections(model)] == [0, 0]


def test_a_training_step_has_the_losses_of_one_scale():
    model, plain = everything(), built(context=True)
    plain.load_state_dict(model.state_dict(), strict=True)
    losses = []
    for one in (model, plain):
        torch.manual_seed(5)
        data = one.data_preprocessor(batch(2), True)
        with torch.no_grad():
            losses.append(one.parse_losses(one(**data, mode="loss"))[1])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine": -1}, "refine must be >= 0, got -1"),
        ({"vote_iou": 0.0}, r"vote_iou must be None or in \(0, 1\], got 0.0"),
        ({"test_scales": [600]}, "two or more, ascending"),
        ({"test_scales": [800, 600]}, "two or more, ascending"),
        ({"test_scales": [400, 600]}, "one of test_scales, got None"),
        ({"test_scales": [400, 600], "input_scale": 500}, "one of test_scales, got 500"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        built(**options)


@pytest.mark.parametrize("options", [{"context": True}, SCALES])
def test_vectors_need_a_head_that_averages(options):
    cfg = load_config("systems/shapes/faster_rcnn_r18_fpn.py").model
    cfg.roi_head.update(type="fldet.RoIHead", **options)
    with pytest.raises(ValueError, match="a bbox_head with_avg_pool=True"):
        MODELS.build(cfg)


def test_scales_are_for_a_detector_of_one_map():
    with pytest.raises(ValueError, match="a bbox_roi_extractor of one map"):
        built(bbox_roi_extractor={"featmap_strides": [16, 32]}, **SCALES)
