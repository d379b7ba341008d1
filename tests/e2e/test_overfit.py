"""Small detectors learn four photographs by heart: the whole chain from pixels to AP works."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask

import fldet
from fldet.config.load import load_config
from fldet.engine.test import test as run_test
from fldet.engine.train import train

CONFIGS = Path(fldet.__file__).parent.parent / "configs"
# As in the paper: no norms in neck and head, its anchors, SGD.
AS_IN_THE_PAPER = """
model = dict(
    neck=dict(norm_cfg=None),
    bbox_head=dict(norm_cfg=None, anchor_generator=dict(sizes=[32, 64, 128, 256, 512])))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
"""
SMALL = sorted((CONFIGS / "systems" / "shapes").glob("*.py"))
# Iterations, and what suits photographs that are learned at one size: regions are not looked at in
# other sizes, and the pull to priors ends with the warm-up of a run whose steps have four images.
ONE_SIZE = "model = dict(roi_head=dict(test_scales=None))"
SHORT_PULL = "model = dict(train_cfg=dict(prior_images=100))"
OTHERWISE = {"faster_rcnn_r18_plus": (700, ONE_SIZE), "yolov2_small": (800, SHORT_PULL)}
CONFIG = """
_base_ = '{base}'
data_root = '{root}'
{more}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=({side}, {side}), keep_ratio={keep_ratio}),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=({side}, {side}), keep_ratio={keep_ratio}),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    batch_sampler=None,
    dataset=dict(
        _delete_=True,
        type='fldet.CocoDataset',
        ann_file='{ann_file}',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline))
val_dataloader = None
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='fldet.CocoDataset',
        ann_file='{ann_file}',
        data_prefix=dict(img='train2017/'),
        test_mode=True,
        pipeline=pipeline))
test_evaluator = dict(type='fldet.CocoMetric')
train_cfg = dict(max_iters={iterations}, val_interval={iterations})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end={iterations}),
]
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(interval={iterations}, save_best=None))
"""


def four_simple_images(coco_mini):
    """The first four training images with one to three boxes, all of at least 96 x 96 pixels.

    None overlaps another so far that the suppression of a detector would take one of them away.
    """
    content = json.loads((coco_mini / "annotations" / "instances_train2017.json").read_text())
    chosen = []
    for image in content["images"]:
        boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        large = all(min(b["bbox"][2:]) >= 96 and not b["iscrowd"] for b in boxes)
        if 1 <= len(boxes) <= 3 and large and overlap([b["bbox"] for b in boxes]) < 0.2:
            chosen.append((image, boxes))
    images, boxes = zip(*chosen[:4], strict=True)
    used = {box["category_id"] for group in boxes for box in group}
    return {
        "images": list(images),
        "annotations": [box for group in boxes for box in group],
        "categories": [c for c in content["categories"] if c["id"] in used],
    }


def overlap(boxes):
    """The largest IoU of two of some boxes x, y, width, height."""
    ious = mask.iou(boxes, boxes, [0] * len(boxes)) - np.eye(len(boxes)) if boxes else np.zeros(1)
    return ious.max()


@pytest.mark.slow
@pytest.mark.e2e
def test_four_photographs_are_learned_by_heart(coco_mini, tmp_path):
    config = CONFIGS / "bccd" / "retinanet_r18_bccd.py"
    assert (
        learn(config, coco_mini, tmp_path, 250, AS_IN_THE_PAPER, side=192, keep_ratio=True) >= 0.9
    )


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.parametrize("config", SMALL, ids=lambda path: path.stem)
def test_four_photographs_are_learned_by_heart_by_the_other_systems(config, coco_mini, tmp_path):
    iterations, more = OTHERWISE.get(config.stem, (300, ""))
    assert learn(config, coco_mini, tmp_path, iterations, more) >= 0.9


def learn(base, coco_mini, tmp_path, iterations, more="", *, side=160, keep_ratio=False):
    """Returns the AP on the four photographs that a detector was trained on."""
    ann_file = tmp_path / "four.json"
    ann_file.write_text(json.dumps(four_simple_images(coco_mini)))
    config = tmp_path / "four.py"
    text = CONFIG.format(
        base=base,
        root=coco_mini,
        ann_file=ann_file,
        side=side,
        keep_ratio=keep_ratio,
        iterations=iterations,
        more=more,
    )
    config.write_text(text)
    cfg = load_config(config)
    result = train(cfg, work_dir=tmp_path / "run", device="cpu")
    tested = run_test(cfg, result.work_dir, work_dir=tmp_path / "test", device="cpu")
    assert tested.figures.num_images == 4
    return tested.figures.summary["AP"]
