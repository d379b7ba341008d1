"""Faster R-CNN with TDM, Inception-ResNet-v2: the system of G-RMI with a top-down module, stride 8.

The publication's channels of the module and the maps that it joins were not at hand: those below
are fldet's (DEVIATION D43), so the figures of this network are not those of the paper's.

Reproduces: Table 2, Faster R-CNN w TDM, 36.8 AP / 57.7 AP50 / 39.2 AP75 (test-dev).
Hardware: 8 GPUs x 1 image, after a training of grmi_inception_resnet_v2_stride16.
Train: fldet train configs/systems/tdm_inception_resnet_v2.py --gpus 8
Test:  fldet test configs/systems/tdm_inception_resnet_v2.py work_dirs/tdm_inception_resnet_v2
"""
_base_ = './grmi_inception_resnet_v2_stride16.py'
# DEVIATION D44: one module, which begins with the weights of the whole base network.
load_from = 'work_dirs/grmi_inception_resnet_v2_stride16/iter_168750.pth'
model = dict(
    backbone=dict(out_indices=(0, 1), init_cfg=None),
    neck=dict(
        type='fldet.TopDownModulation',
        in_channels=(320, 1088),
        lateral_channels=(256, ),
        top_down_channels=(256, ),
        out_channels=(512, )),
    rpn_head=dict(
        in_channels=512,
        anchor_generator=dict(scales=[8, 16, 32, 64], strides=[8])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=512, featmap_strides=[8]),
        shared_head=dict(in_channels=512, init_cfg=None)))
