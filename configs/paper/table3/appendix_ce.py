"""Cross entropy with alpha = 0.75, the best of Table 1a.

Reproduces: Table 3, CE, R50-600, 31.1 AP / 49.4 AP50 / 33.0 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table3/appendix_ce.py --gpus 8
"""
_base_ = '../table1a/ce_alpha_0.75.py'
