"""A small Faster R-CNN+++ on Shapes: refinement, context, five scales for the RoI head.

Reproduces: nothing of the paper; the parts of Table 2's Faster R-CNN+++ at a size for a CPU.
Hardware: 2 CPU cores, minutes.
Train: fldet train configs/systems/shapes/faster_rcnn_r18_plus.py
Test:  fldet test configs/systems/shapes/faster_rcnn_r18_plus.py work_dirs/faster_rcnn_r18_plus
"""
_base_ = './faster_rcnn_r18_c4.py'
# Scales and scale_side are the paper's for images of 160 pixels instead of 600.
model = dict(
    type='fldet.FasterRCNN',
    roi_head=dict(
        type='fldet.RoIHead',
        context=True,
        refine=1,
        vote_iou=0.5,
        test_scales=[53, 107, 160, 213, 267],
        input_scale=160,
        scale_side=60.0))
