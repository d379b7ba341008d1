"""Faster R-CNN C4 with box refinement and the context of the whole image: the second step to +++.

Reproduces: He et al. (arXiv 1512.03385), Table 9, + context, 30.0 AP (val, trained on train).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/systems/faster_rcnn_r101_c4_context.py --gpus 8
Test:  fldet test configs/systems/faster_rcnn_r101_c4_context.py work_dirs/faster_rcnn_r101_c4_context
"""
_base_ = './faster_rcnn_r101_c4_refine.py'
model = dict(roi_head=dict(context=True))
