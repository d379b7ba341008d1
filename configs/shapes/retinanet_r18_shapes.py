"""A small RetinaNet on Shapes, the data set that fldet draws itself at the first use.

Reproduces: nothing of the paper; a check of the whole way in minutes.
Hardware: 2 CPU cores, two and a half minutes.
Train: fldet train configs/shapes/retinanet_r18_shapes.py
Test:  fldet test configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
"""
_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/from_nothing.py',
    '../_base_/default_runtime.py',
]
data_root = 'data/shapes/'

model = dict(bbox_head=dict(num_classes=6))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
shapes = dict(type='fldet.ShapesDataset', num_train=1600, num_val=200, image_size=160, seed=0)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline, **shapes))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline, **shapes))

default_hooks = dict(checkpoint=dict(interval=600))
