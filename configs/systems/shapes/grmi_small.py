"""A small Faster R-CNN by G-RMI on Shapes: a quarter of the channels, few blocks, 160 px.

Reproduces: nothing of the paper; the parts of Table 2's Faster R-CNN by G-RMI, in minutes.
Hardware: 2 CPU cores, minutes.
Train: fldet train configs/systems/shapes/grmi_small.py
Test:  fldet test configs/systems/shapes/grmi_small.py work_dirs/grmi_small
"""
_base_ = [
    '../../_base_/models/grmi_inception_resnet_v2.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/from_nothing.py',
    '../../_base_/default_runtime.py',
]
# DEVIATION D42: stride 16, crops of 9 x 9 points, 30 proposals; norms that learn; anchors beyond the
# image too, as some are larger than it.
norm_cfg = dict(requires_grad=True)
model = dict(
    backbone=dict(
        stride=16, repeats=(1, 2), width=0.25, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    rpn_head=dict(
        in_channels=272,
        feat_channels=128,
        dilation=1,
        anchor_generator=dict(scales=[1, 2, 4, 8], strides=[16])),
    roi_head=dict(
        bbox_roi_extractor=dict(crop_size=9, out_channels=272, featmap_strides=[16]),
        shared_head=dict(
            repeats=1, width=0.25, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
        bbox_head=dict(roi_feat_size=4, in_channels=384, num_classes=6)),
    train_cfg=dict(
        rpn=dict(allowed_border=-1),
        rpn_proposal=dict(nms_pre=200, max_per_img=30),
        rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=30)))

default_hooks = dict(checkpoint=dict(interval=600))
