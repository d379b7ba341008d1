"""Focal loss with gamma = 0: cross entropy with the best alpha of Table 1a.

Reproduces: Table 1b, gamma 0, alpha .75, R50-600, 31.1 AP / 49.4 AP50 / 33.0 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1b/fl_gamma_0.py --gpus 8
"""
_base_ = '../table1a/ce_alpha_0.75.py'
