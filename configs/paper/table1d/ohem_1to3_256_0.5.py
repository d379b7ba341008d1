"""OHEM as in ohem_256_0.5.py, with three negatives for each positive.

Reproduces: Table 1d, OHEM 1:3, batch size 256, nms .5, R101-600, 28.3 AP / 42.4 AP50 / 30.3 AP75
(minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1d/ohem_1to3_256_0.5.py --gpus 8
"""
_base_ = './ohem_256_0.5.py'
model = dict(train_cfg=dict(miner=dict(neg_pos_ratio=3)))
