"""The focal loss with four times the box loss.

Reproduces: no row of the paper; beside gamma 2 in Table 1b.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/balance/fl_box_x4.py --gpus 8
"""
_base_ = '../table1b/fl_gamma_2.py'
model = dict(bbox_head=dict(loss_bbox=dict(loss_weight=4.0)))
