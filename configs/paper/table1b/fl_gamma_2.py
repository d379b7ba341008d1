"""Focal loss with gamma = 2, alpha = 0.25: the setting of the paper.

Reproduces: Table 1b, gamma 2, alpha .25, R50-600, 34.0 AP / 52.5 AP50 / 36.5 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_2.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
