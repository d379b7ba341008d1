"""MMDetection's RetinaNet-R50, to load and test its published checkpoint.

Reproduces: MMDetection's retinanet_r50_fpn_1x_coco, 36.5 AP (val2017) by its model zoo. It differs
from the paper in two points: no ReLU before P7, and L1 instead of smooth L1.
Test: fldet test configs/retinanet/mmdet_r50_fpn_1x.py retinanet_r50_fpn_1x_coco.pth
"""
_base_ = './r50_fpn_1x.py'
model = dict(
    neck=dict(relu_before_extra_convs=False),
    bbox_head=dict(loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)))
