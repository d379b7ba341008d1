"""Balanced cross entropy with sixteen times the box loss.

Reproduces: no row of the paper; beside gamma 0 in Table 1b.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/balance/ce_box_x16.py --gpus 8
"""
_base_ = '../table1b/fl_gamma_0.py'
model = dict(bbox_head=dict(loss_bbox=dict(loss_weight=16.0)))
