"""OHEM as in ohem_128_0.5.py, with three negatives for each positive.

Reproduces: Table 1d, OHEM 1:3, batch size 128, nms .5, R101-600, 31.1 AP / 47.2 AP50 / 33.2 AP75
(minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1d/ohem_1to3_128_0.5.py --gpus 8
"""
_base_ = './ohem_128_0.5.py'
model = dict(train_cfg=dict(miner=dict(neg_pos_ratio=3)))
