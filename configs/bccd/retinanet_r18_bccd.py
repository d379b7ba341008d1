"""A small RetinaNet for blood cells (BCCD: 3 classes, 205 images), trained from nothing on a CPU.

Reproduces: nothing of the paper; a demonstration on real pictures.
Hardware: 2 CPU cores, 10 minutes.
Train: fldet train configs/bccd/retinanet_r18_bccd.py --cfg-options data_root=FOLDER_OF_BCCD
Test:  fldet test configs/bccd/retinanet_r18_bccd.py work_dirs/retinanet_r18_bccd \\
           --cfg-options data_root=FOLDER_OF_BCCD --show-dir pictures
"""
_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/from_nothing.py',
    '../_base_/default_runtime.py',
]
data_root = 'data/bccd/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(
        type='fldet.RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        ann_file='annotations/train.json',
        data_prefix=dict(img='BCCD/JPEGImages/'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        ann_file='annotations/val.json',
        data_prefix=dict(img='BCCD/JPEGImages/'),
        pipeline=test_pipeline))

train_cfg = dict(max_iters=1000, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end=1000),
]
default_hooks = dict(checkpoint=dict(interval=500))
