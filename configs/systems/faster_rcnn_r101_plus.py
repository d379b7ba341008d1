"""Faster R-CNN+++: refinement, context, and five scales for the RoI head, at the test alone.

Reproduces: Table 2, Faster R-CNN+++, 34.9 AP / 55.7 AP50 / 37.4 AP75 (test-dev, trained on train and
val); He et al. (arXiv 1512.03385), Table 9, + multi-scale testing, 32.5 AP (val, trained on train).
Test: fldet test configs/systems/faster_rcnn_r101_plus.py work_dirs/faster_rcnn_r101_c4_context
"""
_base_ = './faster_rcnn_r101_c4_context.py'
# DEVIATION D36, D37: how two scales are chosen and merged, and what is resized.
model = dict(
    type='fldet.FasterRCNN',
    roi_head=dict(test_scales=[200, 400, 600, 800, 1000], input_scale=600))
