"""A small YOLOv2 on Shapes: the parts of the big one with half the channels and less, 160 px.

Reproduces: nothing of the paper; YOLOv2 beside the other systems of Table 2, in minutes.
Hardware: 2 CPU cores, three minutes.
Train: fldet train configs/systems/shapes/yolov2_small.py
Test:  fldet test configs/systems/shapes/yolov2_small.py work_dirs/yolov2_small
"""
_base_ = [
    '../../_base_/models/yolov2_darknet19.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/from_nothing.py',
    '../../_base_/default_runtime.py',
]

norm_cfg = dict(type='BN')
model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(base_channels=16, norm_cfg=norm_cfg),
    neck=dict(
        in_channels=(256, 512), out_channels=256, passthrough_channels=32, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=6,
        in_channels=256,
        # k-means over the boxes of Shapes, by IoU as in the paper
        priors=[(0.7, 0.69), (1.04, 1.01), (1.58, 1.54), (2.32, 2.3), (3.71, 3.54)]),
    # the pull to the priors ends with the warm-up
    train_cfg=dict(prior_images=400))

default_hooks = dict(checkpoint=dict(interval=600))
