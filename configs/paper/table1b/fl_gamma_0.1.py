"""Focal loss with gamma = 0.1 and the alpha that the paper found best for it, 0.75.

Reproduces: Table 1b, gamma .1, alpha .75, R50-600, 31.4 AP / 49.9 AP50 / 33.1 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_0.1.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(loss_cls=dict(gamma=0.1, alpha=0.75)))
