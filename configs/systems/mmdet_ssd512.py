"""MMDetection's SSD512 (VGG-16), to load and test its published checkpoint.

Reproduces: MMDetection's ssd512_coco, 29.5 AP (val2017) by its model zoo; no row of the paper. Its
head with the loss that MMDetection 3.2 and later lack, without which it cannot be tested.
Hardware: 8 GPUs x 8 images, as in MMDetection.
Train: fldet train configs/systems/mmdet_ssd512.py --gpus 8
Test:  fldet test configs/systems/mmdet_ssd512.py ssd512_coco_20210803_022849-0a47a1ca.pth
"""
_base_ = [
    '../_base_/datasets/coco_ssd.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[1, 1, 1],
        bgr_to_rgb=True,
        pad_size_divisor=1),
    backbone=dict(
        type='SSDVGG',
        depth=16,
        with_last_pool=False,
        ceil_mode=True,
        out_indices=(3, 4),
        out_feature_indices=(22, 34),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe')),
    neck=dict(
        type='SSDNeck',
        in_channels=(512, 1024),
        out_channels=(512, 1024, 512, 256, 256, 256, 256),
        level_strides=(2, 2, 2, 2, 1),
        level_paddings=(1, 1, 1, 1, 1),
        last_kernel_size=4,
        l2_norm_scale=20),
    bbox_head=dict(
        type='fldet.SSDHead',
        num_classes=80,
        in_channels=(512, 1024, 512, 256, 256, 256, 256),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=512,
            basesize_ratio_range=(0.1, 0.9),
            strides=[8, 16, 32, 64, 128, 256, 512],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False),
    test_cfg=dict(
        nms_pre=1000,
        nms=dict(type='nms', iou_threshold=0.45),
        min_bbox_size=0,
        score_thr=0.02,
        max_per_img=200))

train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=8)

# MMDetection: 24 passes over the images repeated five times.
train_cfg = dict(max_iters=220000, val_interval=20000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=220000,
        by_epoch=False,
        milestones=[147000, 202000],
        gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.002, momentum=0.9, weight_decay=0.0005))
auto_scale_lr = dict(base_batch_size=64)
compile = dict(sizes=[(512, 512)])
