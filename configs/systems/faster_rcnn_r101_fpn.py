"""Faster R-CNN with FPN, ResNet-101, 800 px, 160k iterations.

Reproduces: Table 2, Faster R-CNN w FPN, 36.2 AP / 59.1 AP50 / 39.0 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/systems/faster_rcnn_r101_fpn.py --gpus 8
Test:  fldet test configs/systems/faster_rcnn_r101_fpn.py work_dirs/faster_rcnn_r101_fpn
"""
_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))

# DEVIATION D19: one training of RPN and detector together, as long as the detector's in the paper.
train_cfg = dict(max_iters=160000, val_interval=20000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3.0, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=160000, by_epoch=False, milestones=[120000], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.02))
