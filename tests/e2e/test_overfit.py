"""A small RetinaNet learns four real pictures by heart: the whole chain from pixels to AP works."""

import json
from pathlib import Path

import pytest

import fldet
from fldet.config.load import load_config
from fldet.engine.test import test as run_test
from fldet.engine.train import train

BASE = Path(fldet.__file__).parent.parent / "configs" / "bccd" / "retinanet_r18_bccd.py"
CONFIG = """
_base_ = '{base}'
data_root = '{root}'
# As in the paper: no norms in neck and head, its anchors, SGD.
model = dict(
    neck=dict(norm_cfg=None),
    bbox_head=dict(norm_cfg=None, anchor_generator=dict(sizes=[32, 64, 128, 256, 512])))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(192, 192), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(192, 192), keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    batch_sampler=None,
    dataset=dict(
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
train_cfg = dict(max_iters=250)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end=250),
]
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(interval=250, save_best=None))
"""


def four_simple_images(coco_mini):
    """The first four training images with one to three boxes, all of at least 96 x 96 pixels."""
    content = json.loads((coco_mini / "annotations" / "instances_train2017.json").read_text())
    chosen = []
    for image in content["images"]:
        boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        if 1 <= len(boxes) <= 3 and all(
            min(b["bbox"][2:]) >= 96 and not b["iscrowd"] for b in boxes
        ):
            chosen.append((image, boxes))
    images, boxes = zip(*chosen[:4], strict=True)
    used = {box["category_id"] for group in boxes for box in group}
    return {
        "images": list(images),
        "annotations": [box for group in boxes for box in group],
        "categories": [c for c in content["categories"] if c["id"] in used],
    }


@pytest.mark.slow
@pytest.mark.e2e
def test_four_real_images_are_learned_by_heart(coco_mini, tmp_path):
    ann_file = tmp_path / "four.json"
    ann_file.write_text(json.dumps(four_simple_images(coco_mini)))
    config = tmp_path / "four.py"
    config.write_text(CONFIG.format(base=BASE, root=coco_mini, ann_file=ann_file))
    cfg = load_config(config)
    result = train(cfg, work_dir=tmp_path / "run", device="cpu")
    tested = run_test(cfg, result.work_dir, work_dir=tmp_path / "test", device="cpu")
    assert tested.figures.num_images == 4
    assert tested.figures.summary["AP"] >= 0.9
