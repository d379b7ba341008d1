# A RetinaNet that trains from nothing on a CPU in minutes (DEVIATION D11): the parts of the big one
# with fewer channels, batch statistics that are learned, and norms in neck and head. Anchors have
# three quarters of the paper's sizes, for small images.
_base_ = './retinanet_r50_fpn.py'
model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=dict(type='BN')),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(sizes=[24, 48, 96, 192, 384])))
