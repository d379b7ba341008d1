"""Faster R-CNN by G-RMI without dilation, at stride 16: what the training of TDM starts from.

Reproduces: Huang et al. (arXiv 1611.10012), single model of stride 16, 35.0 AP (their 8,000 images).
Hardware: 8 GPUs x 1 image; the authors 9 workers x 1 image.
Train: fldet train configs/systems/grmi_inception_resnet_v2_stride16.py --gpus 8
Test:  fldet test configs/systems/grmi_inception_resnet_v2_stride16.py work_dirs/grmi_inception_resnet_v2_stride16
"""
_base_ = './grmi_inception_resnet_v2.py'
model = dict(
    backbone=dict(stride=16),
    rpn_head=dict(
        dilation=1,
        anchor_generator=dict(scales=[4, 8, 16, 32], strides=[16])),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[16])))
