"""A small Faster R-CNN on conv4_x on Shapes, beside the small RetinaNet.

Reproduces: nothing of the paper; the parts that Table 2's Faster R-CNN+++ starts from, for a CPU.
Hardware: 2 CPU cores, minutes.
Train: fldet train configs/systems/shapes/faster_rcnn_r18_c4.py
Test:  fldet test configs/systems/shapes/faster_rcnn_r18_c4.py work_dirs/faster_rcnn_r18_c4
"""
_base_ = [
    '../../_base_/models/faster_rcnn_r50_c4.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/from_nothing.py',
    '../../_base_/default_runtime.py',
]
# DEVIATION D11: batch statistics that are learned. Anchors are a quarter of the paper's, for small
# images, and those across the border learn. conv5_x sees 8 x 8 pixels of a region.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=None),
    rpn_head=dict(
        in_channels=128, feat_channels=128, anchor_generator=dict(scales=[1, 2, 4, 8])),
    roi_head=dict(
        shared_head=dict(
            depth=18, base_channels=32, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
        bbox_roi_extractor=dict(roi_layer=dict(output_size=8), out_channels=128),
        bbox_head=dict(in_channels=256, roi_feat_size=4, num_classes=6)),
    train_cfg=dict(
        rpn=dict(allowed_border=-1),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=30)))

default_hooks = dict(checkpoint=dict(interval=600))
