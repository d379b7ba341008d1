"""A small RetinaNet on Shapes, the data set that fldet draws itself at the first use.

Reproduces: nothing of the paper; a check of the whole way in minutes.
Hardware: 2 CPU cores, about 5 minutes.
Train: fldet train configs/shapes/retinanet_r18_shapes.py
Test:  fldet test configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
"""
_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
data_root = 'data/shapes/'

# DEVIATION D11: norms in neck and head, and AdamW: a start from nothing in a few minutes.
# Anchors of three quarters of the paper's sizes, for images of 160 pixels.
model = dict(
    neck=dict(norm_cfg=dict(type='BN')),
    bbox_head=dict(
        num_classes=6,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(sizes=[24, 48, 96, 192, 384])))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
shapes = dict(type='fldet.ShapesDataset', num_train=1600, num_val=200, image_size=160, seed=0)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline, **shapes))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline, **shapes))

train_cfg = dict(max_iters=1500, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=1500, eta_min=0.00002),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.003, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=500))
