"""A small DSSD on Shapes: the decoder of DSSD513 on the trained small SSD.

Reproduces: nothing of the paper; the row DSSD513 of the small comparison of systems.
Hardware: 2 CPU cores, about three minutes, after a training of ssd_r18.
Train: fldet train configs/systems/shapes/dssd_r18.py
Test:  fldet test configs/systems/shapes/dssd_r18.py work_dirs/dssd_r18
"""
_base_ = './ssd_r18.py'
load_from = 'work_dirs/ssd_r18/iter_1200.pth'
model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True),
    neck=dict(
        type='fldet.DeconvolutionNeck',
        widths=(32, 32, 32, 32, 32),
        decoder_channels=64,
        up_kernel_sizes=(2, 2, 3, 3),
        up_strides=(2, 2, 1, 1),
        freeze_encoder=True),
    bbox_head=dict(
        stacked_convs=1,
        feat_channels=64,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='ReLU')))
