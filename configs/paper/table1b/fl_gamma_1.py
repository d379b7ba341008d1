"""Focal loss with gamma = 1 and the alpha that the paper found best for it, 0.25.

Reproduces: Table 1b, gamma 1, alpha .25, R50-600, 33.7 AP / 52.0 AP50 / 36.2 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_1.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(loss_cls=dict(gamma=1.0, alpha=0.25)))
