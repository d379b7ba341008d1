"""A small Faster R-CNN with FPN on Shapes, beside the small RetinaNet.

Reproduces: nothing of the paper; the parts of Table 2's Faster R-CNN w FPN at a size for a CPU.
Hardware: 2 CPU cores, minutes.
Train: fldet train configs/systems/shapes/faster_rcnn_r18_fpn.py
Test:  fldet test configs/systems/shapes/faster_rcnn_r18_fpn.py work_dirs/faster_rcnn_r18_fpn
"""
_base_ = [
    '../../_base_/models/faster_rcnn_r50_fpn.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/from_nothing.py',
    '../../_base_/default_runtime.py',
]
# DEVIATION D11: batch statistics that are learned, norms in the pyramid. Anchors, and the sizes of
# RoIs by level, are half of the paper's, for small images.
model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(sizes=[16, 32, 64, 128, 256])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)))

default_hooks = dict(checkpoint=dict(interval=600))
