"""Focal loss with gamma = 0.2 and the alpha that the paper found best for it, 0.75.

Reproduces: Table 1b, gamma .2, alpha .75, R50-600, 31.9 AP / 50.7 AP50 / 33.4 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_0.2.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(loss_cls=dict(gamma=0.2, alpha=0.75)))
