"""Focal loss with gamma = 2, beside the two of FL*.

Reproduces: Table 3, FL, R50-600, 34.0 AP / 52.5 AP50 / 36.5 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table3/appendix_fl.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
