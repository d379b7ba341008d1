"""OHEM, 128 examples after NMS at 0.5, divided by the positives among them.

Reproduces: no row of the paper; beside OHEM 128/.5 in Table 1d. The box loss is divided by
the positives in all rows; divided alike, the loss of the classes weighs more beside it (D14).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/balance/ohem_by_positives.py --gpus 8
"""
_base_ = '../table1d/ohem_128_0.5.py'
model = dict(train_cfg=dict(miner=dict(divisor='positives')))
