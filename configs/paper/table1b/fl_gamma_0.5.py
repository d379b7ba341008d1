"""Focal loss with gamma = 0.5 and the alpha that the paper found best for it, 0.5.

Reproduces: Table 1b, gamma .5, alpha .50, R50-600, 32.9 AP / 51.7 AP50 / 35.2 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_0.5.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(loss_cls=dict(gamma=0.5, alpha=0.5)))
