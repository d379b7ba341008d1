"""RetinaNet, ResNet-101-FPN, 800 px, scale jitter, 135k iterations.

Reproduces: Table 2, RetinaNet ResNet-101-FPN, 39.1 AP / 59.1 AP50 / 42.3 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/retinanet/r101_fpn_1.5x.py --gpus 8
"""
_base_ = './r101_fpn_1x.py'

# DEVIATION D6: the paper says "scale jitter" without a range; this is the usual one for 800 px.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_iters=135000, val_interval=15000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3.0, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=135000,
        by_epoch=False,
        milestones=[90000, 120000],
        gamma=0.1),
]
