"""MMDetection's RetinaNet, ResNeXt-101-32x4d, to load and test its published checkpoint.

Reproduces: MMDetection's retinanet_x101_32x4d_fpn_1x_coco, 39.9 AP (val2017) by its model zoo.
Test: fldet test configs/retinanet/mmdet_x101_32x4d_fpn_1x.py retinanet_x101_32x4d_fpn_1x_coco.pth
"""
_base_ = './mmdet_r50_fpn_1x.py'
model = dict(
    backbone=dict(
        type='ResNeXt',
        depth=101,
        groups=32,
        base_width=4,
        init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d')))
