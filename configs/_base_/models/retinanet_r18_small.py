# A RetinaNet that trains from nothing on a CPU: the parts of the big one with fewer channels, and
# batch norm that learns (DEVIATION D11).
_base_ = './retinanet_r50_fpn.py'
model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2))
