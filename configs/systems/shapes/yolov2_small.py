"""A small YOLOv2 on Shapes: the parts of the big one with half the channels and less.

Reproduces: nothing of the paper; YOLOv2 beside the other systems of Table 2, in minutes.
Hardware: 2 CPU cores, two and a half minutes.
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
    # one stage less: 160 px have 10 x 10 cells, as 320 px in the big one
    backbone=dict(base_channels=16, out_indices=(3, 4), norm_cfg=norm_cfg),
    neck=dict(
        in_channels=(128, 256), out_channels=192, passthrough_channels=32, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=6,
        in_channels=192,
        stride=16,
        # k-means over the boxes of Shapes, by IoU as in the paper
        priors=[(1.4, 1.38), (2.08, 2.02), (3.16, 3.08), (4.64, 4.6), (7.42, 7.08)]),
    # the pull to the priors ends with the warm-up
    train_cfg=dict(prior_images=400))

default_hooks = dict(checkpoint=dict(interval=600))
