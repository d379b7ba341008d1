"""MMDetection's RetinaNet, ResNet-18, to load and test its published checkpoint.

Reproduces: MMDetection's retinanet_r18_fpn_1x_coco, 31.7 AP (val2017) by its model zoo.
Test: fldet test configs/retinanet/mmdet_r18_fpn_1x.py retinanet_r18_fpn_1x_coco.pth
"""
_base_ = './mmdet_r50_fpn_1x.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
