"""A model of 60,000 weights, small enough to keep its checkpoints as files of the tests."""
_base_ = './base.py'
data_root = 'data/shapes/'
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], out_channels=16),
    bbox_head=dict(
        in_channels=16, feat_channels=16, stacked_convs=1, norm_cfg=dict(num_groups=4)))
default_hooks = dict(checkpoint=dict(interval=10))
