"""A small DSSD on Shapes: the small SSD with the decoder of DSSD513, all of it from nothing.

Reproduces: nothing of the paper; the row DSSD513 of the small comparison of systems.
Hardware: 2 CPU cores, about five minutes.
Train: fldet train configs/systems/shapes/dssd_r18.py
Test:  fldet test configs/systems/shapes/dssd_r18.py work_dirs/dssd_r18
"""
_base_ = './ssd_r18.py'
# DEVIATION D26: DSSD513 starts from a trained SSD513, which would be twice the iterations of the
# other small systems.
model = dict(
    neck=dict(
        type='fldet.DeconvolutionNeck',
        widths=(32, 32, 32, 32, 32),
        decoder_channels=64,
        up_kernel_sizes=(2, 2, 3, 3),
        up_strides=(2, 2, 1, 1),
        freeze_encoder=False),
    bbox_head=dict(
        stacked_convs=1,
        feat_channels=64,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='ReLU')))
