"""Faster R-CNN on conv4_x of ResNet-101, 600 px, 320k iterations: what +++ starts from.

Reproduces: He et al. (arXiv 1512.03385), Table 9, baseline, 27.2 AP (val, trained on train).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/systems/faster_rcnn_r101_c4.py --gpus 8
Test:  fldet test configs/systems/faster_rcnn_r101_c4.py work_dirs/faster_rcnn_r101_c4
"""
_base_ = [
    '../_base_/models/faster_rcnn_r50_c4.py',
    '../_base_/datasets/coco_600px.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
weights = dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet101_caffe')
model = dict(
    backbone=dict(depth=101, init_cfg=weights),
    roi_head=dict(shared_head=dict(depth=101, init_cfg=weights)))

# DEVIATION D33: one training of RPN and detector together, as long as each of them in the paper.
train_cfg = dict(max_iters=320000, val_interval=20000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3.0, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=320000, by_epoch=False, milestones=[240000], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.001))
