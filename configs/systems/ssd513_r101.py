"""SSD513, ResNet-101: one look at a warped image of 513x513 pixels.

Reproduces: Table 2, SSD513, 31.2 AP / 50.4 AP50 / 33.3 AP75 (test-dev).
Hardware: 8 GPUs x 5 images; the authors 4 GPUs x 5 images, two passes a step.
Train: fldet train configs/systems/ssd513_r101.py --gpus 8
Test:  fldet test configs/systems/ssd513_r101.py work_dirs/ssd513_r101
"""
_base_ = [
    '../_base_/datasets/coco_ssd.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
# The numbers are those of the authors' ssd_coco_resnet_513.py; momentum is 1 - .999 of Caffe.
norm_cfg = dict(type='BN', eps=0.001, momentum=0.001)
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[104.0, 117.0, 123.0],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=1),
    backbone=dict(
        type='fldet.SSDResNet',
        depth=101,
        num_stages=4,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(1, 3),
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='caffe',
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet101_caffe')),
    neck=dict(
        type='fldet.ResidualSSDNeck',
        in_channels=(512, 2048),
        extra_channels=1024,
        kernel_sizes=(2, 2, 2, 2, 2),
        strides=(2, 2, 2, 2, 2),
        widths=(128, 512, 256, 256, 256, 256, 256),
        norm_cfg=norm_cfg),
    bbox_head=dict(
        type='fldet.SSDHead',
        num_classes=80,
        in_channels=(512, 2048, 1024, 1024, 1024, 1024, 1024),
        kernel_sizes=(5, 5, 3, 3, 3, 3, 3),
        # Sides are 4 %, then 10 to 95 % of the image in steps of 17 %, as Caffe cuts them off.
        anchor_generator=dict(
            type='fldet.DefaultBoxes',
            strides=[8, 16, 32, 64, 128, 256, 513],
            min_sizes=[20, 51, 138, 225, 312, 400, 487],
            max_sizes=[51, 138, 225, 312, 400, 487, 574],
            ratios=[[1.6, 2, 3]] * 7,
            # DEVIATION D22: in pixels, which is what they make sense as.
            centers=[2.5, 2.5, 10.5, 26.5, 58.5, 122.5, 256.5]),
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

# DEVIATION D23: one way to interpolate; distortion after the warp.
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2].update(mean=[104.0, 117.0, 123.0], to_rgb=False, prob=0.5)
train_pipeline[4]['scale'] = (513, 513)
test_pipeline[1]['scale'] = (513, 513)
train_dataloader = dict(batch_size=5, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=5, dataset=dict(pipeline=test_pipeline))

# DEVIATION D24: the schedule of the authors' script; that of their COCO model is not stated.
train_cfg = dict(max_iters=250000, val_interval=25000)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=250000,
        by_epoch=False,
        milestones=[130000, 210000],
        gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0005))
auto_scale_lr = dict(base_batch_size=40)
# A compiled training is for one size: --cfg-options "compile={'sizes': [(513, 513)]}"; padding to
# multiples would change the maps and their default boxes.
