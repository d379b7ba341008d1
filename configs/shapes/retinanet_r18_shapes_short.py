"""The small RetinaNet on Shapes for an eighth of the iterations: shows that everything runs.

Reproduces: nothing of the paper.
Hardware: 2 CPU cores, less than a minute.
Train: fldet train configs/shapes/retinanet_r18_shapes_short.py
"""
_base_ = './retinanet_r18_shapes.py'

train_cfg = dict(max_iters=150, val_interval=150)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end=150),
]
