"""A small Faster R-CNN with TDM on Shapes: the small G-RMI with a top-down module.

Reproduces: nothing of the paper; the parts of Table 2's Faster R-CNN w TDM, in minutes.
Hardware: 2 CPU cores, minutes.
Train: fldet train configs/systems/shapes/tdm_small.py
Test:  fldet test configs/systems/shapes/tdm_small.py work_dirs/tdm_small
"""
# DEVIATION D44: one training from nothing, as long as those of the other systems.
_base_ = './grmi_small.py'
model = dict(
    backbone=dict(out_indices=(0, 1)),
    neck=dict(
        type='fldet.TopDownModulation',
        in_channels=(80, 272),
        lateral_channels=(64, ),
        top_down_channels=(64, ),
        out_channels=(128, ),
        norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=128,
        anchor_generator=dict(scales=[2, 4, 8, 16], strides=[8])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128, featmap_strides=[8]),
        shared_head=dict(in_channels=128)))
