"""Hinge loss on p_t, a negative control.

Reproduces: Sec. 5.1: no meaningful result in the paper; no figures.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/controls/hinge.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.HingeLoss', use_sigmoid=True, threshold=0.5)))
