"""Focal loss with gamma = 5 and the alpha that the paper found best for it, 0.25.

Reproduces: Table 1b, gamma 5, alpha .25, R50-600, 32.2 AP / 49.6 AP50 / 34.8 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_5.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(loss_cls=dict(gamma=5.0, alpha=0.25)))
