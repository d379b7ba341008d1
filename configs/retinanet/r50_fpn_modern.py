"""RetinaNet, ResNet-50-FPN, as people train it today: after torchvision's second version.

Reproduces: torchvision's retinanet_resnet50_fpn_v2, 41.5 AP / 61.8 AP50 / 43.9 AP75 (val2017), as
its authors report. GIoU loss on decoded boxes, group norm in the subnets, trained batch norm,
better pretrained weights, AdamW, 26 epochs at 480 to 800 px. DEVIATION D16: no row of the paper.
Hardware: 8 GPUs x 2 images.
Train: fldet train configs/retinanet/r50_fpn_modern.py --gpus 8
"""
_base_ = './r50_fpn_1x.py'
model = dict(
    backbone=dict(
        norm_eval=False,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-11ad3fa6.pth')),
    bbox_head=dict(
        norm_cfg=dict(type='GN', num_groups=32),
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=1.0)))
# Statistics over the images of all GPUs; without effect in a single process.
sync_bn = 'torch'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# 26 epochs of 117 266 images with objects, the rate divided by 10 after 16 and 22.
train_cfg = dict(max_iters=190000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=190000,
        by_epoch=False,
        milestones=[117000, 161000],
        gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0))
