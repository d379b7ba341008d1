"""A small RetinaNet on Shapes, the data set that fldet draws itself at the first use.

Reproduces: nothing of the paper; a check of the whole way in minutes.
Hardware: 2 CPU cores, two and a half minutes.
Train: fldet train configs/shapes/retinanet_r18_shapes.py
Test:  fldet test configs/shapes/retinanet_r18_shapes.py work_dirs/retinanet_r18_shapes
"""
_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/from_nothing.py',
    '../_base_/default_runtime.py',
]

model = dict(bbox_head=dict(num_classes=6))

default_hooks = dict(checkpoint=dict(interval=600))
