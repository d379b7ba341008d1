"""A small SSD on Shapes: the parts of SSD513 with fewer channels, on images of 160 pixels.

Reproduces: nothing of the paper; the row SSD513 of the small comparison of systems.
Hardware: 2 CPU cores, about three minutes.
Train: fldet train configs/systems/shapes/ssd_r18.py
Test:  fldet test configs/systems/shapes/ssd_r18.py work_dirs/ssd_r18
"""
_base_ = [
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/from_nothing.py',
    '../../_base_/default_runtime.py',
]
# DEVIATION D26: a ResNet-18 of half width that starts from nothing, no crops, other default boxes.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1),
    backbone=dict(
        type='fldet.SSDResNet',
        depth=18,
        base_channels=32,
        num_stages=4,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(1, 3),
        frozen_stages=-1,
        norm_eval=False,
        style='pytorch'),
    neck=dict(
        type='fldet.ResidualSSDNeck',
        in_channels=(64, 256),
        extra_channels=128,
        # maps of 20, 10, 5, 3 and 1 cells, as the last five of SSD321
        kernel_sizes=(2, 3, 3),
        strides=(2, 1, 1),
        widths=(32, 32, 32, 32, 32)),
    bbox_head=dict(
        type='fldet.SSDHead',
        num_classes=6,
        in_channels=(128, 128, 128, 128, 128),
        kernel_sizes=(5, 5, 3, 3, 3),
        anchor_generator=dict(
            type='fldet.DefaultBoxes',
            strides=[8, 16, 32, 53, 160],
            min_sizes=[16, 32, 72, 112, 152],
            max_sizes=[32, 72, 112, 152, 192],
            ratios=[[1.6, 2, 3]] * 5),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(
        assigner=dict(type='fldet.BipartiteAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5),
        miner=dict(type='fldet.HardNegatives', ratio=3),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        score_thr=0.01,
        nms_pre_per_class=400,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=200))

# The images of Shapes as they are; those of others are warped, as in SSD.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))

default_hooks = dict(checkpoint=dict(interval=600))
