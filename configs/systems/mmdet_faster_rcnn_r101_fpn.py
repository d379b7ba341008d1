"""MMDetection's Faster R-CNN with FPN, ResNet-101, to load and test its published checkpoints.

Reproduces: MMDetection's faster-rcnn_r101_fpn_1x_coco, 39.4 AP, and 2x, 39.8 AP (val2017), by its
model zoo. It differs from the paper in L1 instead of smooth L1, and 1000 proposals in training.
Test: fldet test configs/systems/mmdet_faster_rcnn_r101_fpn.py faster_rcnn_r101_fpn_1x_coco.pth
"""
_base_ = './faster_rcnn_r101_fpn.py'
model = dict(
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    roi_head=dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0))),
    train_cfg=dict(rpn_proposal=dict(max_per_img=1000)))
