"""Hinge loss on p_t, a negative control.

Reproduces: the hinge loss of Section 5.1, which gave no meaningful result; no figures.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/controls/hinge.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.HingeLoss', use_sigmoid=True, threshold=0.5)))
