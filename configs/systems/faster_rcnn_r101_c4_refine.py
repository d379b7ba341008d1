"""Faster R-CNN C4 with box refinement and voting, at the test alone: the first step to +++.

Reproduces: He et al. (arXiv 1512.03385), Table 9, + box refinement, 29.9 AP (val, trained on train).
Test: fldet test configs/systems/faster_rcnn_r101_c4_refine.py work_dirs/faster_rcnn_r101_c4
"""
_base_ = './faster_rcnn_r101_c4.py'
# DEVIATION D36: what box is refined, who votes.
model = dict(roi_head=dict(type='fldet.RoIHead', refine=1, vote_iou=0.5))
