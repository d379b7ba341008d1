"""Boxes from annotation files against what the real pipeline makes of the real images."""

import logging

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from fldet.anchors.boxes import anchor_scheme, assign_rule, collect_boxes, warn_of_poor_cover
from fldet.anchors.cover import AnchorScheme, AssignRule
from fldet.config.load import load_config
from fldet.config.prepare import prepare_config
from fldet.engine.train import train
from fldet.errors import ConfigError, DataError, UsageError
from fldet.registry import DATASETS

LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
RESIZES = {
    "as the paper": {"type": "Resize", "scale": (1333, 800), "keep_ratio": True},
    "stretched": {"type": "Resize", "scale": (300, 200), "keep_ratio": False},
    "by a factor": {"type": "Resize", "scale_factor": 0.37},
    "rounded down": {"type": "FixScaleResize", "scale": (511, 399), "keep_ratio": True},
}


def coco_config(coco_mini, *resizes):
    cfg = load_config("retinanet/r50_fpn_1x.py", [f"data_root={coco_mini}"])
    for resize in resizes:
        cfg.train_dataloader.dataset.pipeline = [*LOAD, resize, {"type": "PackDetInputs"}]
    return cfg


@pytest.mark.parametrize("resize", RESIZES.values(), ids=RESIZES)
def test_boxes_are_those_of_the_pipeline(coco_mini, resize):
    cfg = coco_config(coco_mini, resize)
    collected = collect_boxes(cfg)
    dataset = DATASETS.build(prepare_config(cfg, phases=("train",)).train_dataloader.dataset)
    assert len(collected.padded_wh) == len(dataset) == 87
    for index in (0, 3, 17):
        packed = dataset[index]
        expected = packed["data_samples"].gt_instances.bboxes.tensor.numpy()
        np.testing.assert_array_equal(collected.boxes[collected.image_of == index], expected)
        height, width = packed["inputs"].shape[1:]
        padded = [-(-side // 32) * 32 for side in (width, height)]
        assert collected.padded_wh[index].tolist() == padded


def test_crowds_are_left_out_and_areas_are_of_the_file(tiny_config):
    collected = collect_boxes(load_config(tiny_config))
    assert len(collected.boxes) == 9  # two in each of five images, without one crowd
    assert collected.image_of.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(collected.padded_wh) == 6
    sides = collected.boxes[:, 2:] - collected.boxes[:, :2]
    np.testing.assert_allclose(collected.areas, sides.prod(axis=1))  # nothing is resized
    assert collected.about == {
        "config": "tiny",
        "split": "train",
        "images": "all 6 images",
        "resizing": "none",
        "left_out": "RandomFlip",
    }
    resized = collect_boxes(load_config(tiny_config), "val")
    sides = resized.boxes[:, 2:] - resized.boxes[:, :2]
    np.testing.assert_allclose(resized.areas * 1.5**2, sides.prod(axis=1))  # 64 to 96 pixels


@pytest.mark.parametrize(
    "resize",
    [
        {"type": "RandomChoiceResize", "scales": [(64, 64), (96, 96), (128, 128)]},
        {"type": "RandomResize", "scale": [(64, 64), (128, 128)]},
        {"type": "RandomResize", "scale": (64, 64), "ratio_range": (0.5, 2.0)},
    ],
    ids=str,
)
def test_random_scales_are_drawn_with_the_seed(tiny_config, resize):
    cfg = load_config(tiny_config)
    cfg.train_dataloader.dataset.pipeline = [*LOAD, {**resize, "keep_ratio": True}]
    before = np.random.get_state()[1].copy()
    assert "drawn with seed 3" in collect_boxes(cfg, seed=3).about["resizing"]
    first, again, other = (collect_boxes(cfg, seed=seed).boxes for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_max_images_chooses_with_the_seed(coco_mini):
    some = [collect_boxes(coco_config(coco_mini), max_images=5, seed=seed) for seed in (0, 0, 1)]
    assert all(len(one.padded_wh) == 5 for one in some)
    assert some[2].about["images"] == "5 of 87 images, drawn with seed 1"
    np.testing.assert_array_equal(some[0].boxes, some[1].boxes)
    assert not np.array_equal(some[0].boxes, some[2].boxes)


def test_progress_sees_every_image(tiny_config):
    seen = []

    def track(images):
        for image in images:
            seen.append(image)
            yield image

    collect_boxes(load_config(tiny_config), track=track)
    assert seen == list(range(6))


def test_anchors_and_rule_of_a_config(coco_mini):
    cfg = coco_config(coco_mini)
    paper = AnchorScheme((32, 64, 128, 256, 512), (8, 16, 32, 64, 128), 3, (0.5, 1.0, 2.0))
    assert anchor_scheme(cfg) == paper
    assert assign_rule(cfg) == AssignRule(0.5, 0.4, True, 0.0)
    cfg.model.bbox_head.anchor_generator = {
        "type": "mmdet.AnchorGenerator",
        "octave_base_scale": 4,
        "scales_per_octave": 3,
        "ratios": [0.5, 1.0, 2.0],
        "strides": [8, 16, 32, 64, 128],
    }
    assert anchor_scheme(cfg) == paper
    cfg.model.train_cfg.assigner.neg_iou_thr = (0.1, 0.3)
    assert assign_rule(cfg).neg_iou_thr == 0.3
    cfg.model.train_cfg.assigner = {"type": "fldet.MaxIoUAssigner"}
    assert assign_rule(cfg) == AssignRule(0.5, 0.4, True, 0.0)


GENERATOR = {"type": "mmdet.AnchorGenerator", "strides": [8, 16], "ratios": [1.0]}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("bbox_head", {"anchor_generator": None}, "RetinaNet, has no bbox_head.anchor_generator"),
        ("bbox_head", {"anchor_generator": {**GENERATOR, "scales": [1, 4]}}, "cannot be analysed"),
        (
            "bbox_head",
            {
                "anchor_generator": {
                    **GENERATOR,
                    "octave_base_scale": 4,
                    "scales_per_octave": 1,
                    "center_offset": 0.5,
                }
            },
            "cannot be analysed",
        ),
        ("train_cfg", {"assigner": {"type": "ATSSAssigner", "topk": 9}}, "ATSSAssigner"),
        ("train_cfg", {"allowed_border": 0}, "allowed_border is 0"),
    ],
)
def test_other_models_are_refused(coco_mini, place, value, message):
    cfg = coco_config(coco_mini)
    for key, new in value.items():
        cfg.model[place][key] = new
    init_default_scope("mmdet")
    with pytest.raises(ConfigError, match=message):
        anchor_scheme(cfg), assign_rule(cfg)


def test_wrong_split_and_no_boxes(tiny_config, bad_inputs):
    with pytest.raises(UsageError, match="unknown split 'trian'"):
        collect_boxes(load_config(tiny_config), "trian")
    cfg = load_config("retinanet/r50_fpn_1x.py", [f"data_root={bad_inputs}"])
    cfg.train_dataloader.dataset.update(
        ann_file="annotations/no_annotations_at_all.json", data_prefix={"img": "images"}
    )
    with pytest.raises(DataError, match="the train images have no box"):
        collect_boxes(cfg)


# --- the warning ---------------------------------------------------------------------------------


def train_data(cfg):
    init_default_scope("mmdet")
    prepared = prepare_config(cfg, phases=("train",))
    return prepared, DATASETS.build(prepared.train_dataloader.dataset)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_poor_cover_is_said_once_with_the_command(tiny_config, caplog):
    options = ["model.bbox_head.anchor_generator.sizes=[512, 512, 512, 512, 512]"]
    warn_of_poor_cover(*train_data(load_config(tiny_config, options)))
    (message,) = warnings_of(caplog)
    assert message.startswith("100.0 % of the boxes of 6 training images have no anchor")
    assert f"fldet analyze anchors {tiny_config}" in message


def test_boxes_that_are_too_small_as_images_are_shrunk_want_larger_images(tiny_config, caplog):
    cfg = load_config(tiny_config)
    shrinking = {"type": "Resize", "scale": (16, 16), "keep_ratio": True}
    cfg.train_dataloader.dataset.pipeline.insert(2, shrinking)
    warn_of_poor_cover(*train_data(cfg))
    (message,) = warnings_of(caplog)
    assert "as images are shrunk 4.0 times: larger images help" in message
    assert "--size WxH" in message


def test_good_cover_is_not_mentioned(tiny_config, caplog):
    options = [
        "model.bbox_head.anchor_generator.sizes=[16, 24, 32, 48, 64]",
        "model.train_cfg.assigner.pos_iou_thr=0.4",
    ]
    warn_of_poor_cover(*train_data(load_config(tiny_config, options)))
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("dataset", [None, []], ids=["what it is not made for", "empty"])
def test_the_warning_never_fails_a_run(tiny_config, caplog, dataset):
    warn_of_poor_cover(prepare_config(load_config(tiny_config), phases=()), dataset)
    assert warnings_of(caplog) == []


def test_training_warns_and_goes_on(tiny_config, tmp_path, caplog):
    options = [
        "model.bbox_head.anchor_generator.sizes=[512, 512, 512, 512, 512]",
        "train_cfg.max_iters=1",
        "val_dataloader=None",
    ]
    with caplog.at_level(logging.WARNING, logger="fldet"):
        result = train(load_config(tiny_config, options), work_dir=tmp_path / "run", device="cpu")
    assert result.iterations == 1
    assert sum("fldet analyze anchors" in message for message in warnings_of(caplog)) == 1
