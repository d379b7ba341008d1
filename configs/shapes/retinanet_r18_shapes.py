"""A small RetinaNet on Shapes, the data set that fldet draws itself at the first use.

Reproduces: nothing of the paper; a check of the whole way on a CPU.
Train: fldet train configs/shapes/retinanet_r18_shapes.py
"""
_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
data_root = 'data/shapes/'

# Norms in neck and head: without them a start from nothing takes several times as long.
# Anchors of half the paper's sizes, for images of 160 pixels.
model = dict(
    neck=dict(norm_cfg=dict(type='BN')),
    bbox_head=dict(
        num_classes=6,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(sizes=[16, 32, 64, 128, 256])))

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
shapes = dict(type='fldet.ShapesDataset', num_train=1500, num_val=200, image_size=160, seed=0)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline, **shapes))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline, **shapes))

train_cfg = dict(max_iters=2400, val_interval=2400)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=2400, eta_min=0.0002),
]
optim_wrapper = dict(optimizer=dict(lr=0.1), clip_grad=dict(max_norm=10.0, norm_type=2))
auto_scale_lr = dict(base_batch_size=8)
