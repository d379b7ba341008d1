"""MMDetection's RetinaNet, ResNet-101, to load and test its published checkpoint.

Reproduces: MMDetection's retinanet_r101_fpn_1x_coco, 38.5 AP (val2017) by its model zoo.
Test: fldet test configs/retinanet/mmdet_r101_fpn_1x.py retinanet_r101_fpn_1x_coco.pth
"""
_base_ = './mmdet_r50_fpn_1x.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
