"""Plain cross entropy with the prior, not balanced by any alpha.

Reproduces: no row of a table; Section 5.1 has 30.2 AP for cross entropy with the prior, see D15.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/controls/ce_with_prior.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True)))
