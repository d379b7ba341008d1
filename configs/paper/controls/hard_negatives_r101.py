"""All positives and the hardest negatives, 1:3 without NMS, as in SSD.

Reproduces: no row of the paper; beside OHEM in Table 1d.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/controls/hard_negatives_r101.py --gpus 8
"""
_base_ = '../table1e/r101_600px.py'
model = dict(
    bbox_head=dict(loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True)),
    train_cfg=dict(miner=dict(type='fldet.HardNegatives', ratio=3)))
