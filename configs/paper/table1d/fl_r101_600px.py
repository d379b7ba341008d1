"""Focal loss on all anchors, beside the rows of OHEM.

Reproduces: Table 1d, FL, R101-600, 36.0 AP / 54.9 AP50 / 38.7 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1d/fl_r101_600px.py --gpus 8
"""
_base_ = '../table1e/r101_600px.py'
