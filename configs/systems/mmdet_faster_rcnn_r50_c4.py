"""MMDetection's Faster R-CNN on conv4_x, ResNet-50, to load and test its published checkpoints.

Reproduces: MMDetection's faster-rcnn_r50-caffe_c4-1x_coco, 35.6 AP (val2017), by its model zoo. It
differs from the paper in 15 anchors, 1000 proposals, L1 instead of smooth L1, and 800 pixels.
Test: fldet test configs/systems/mmdet_faster_rcnn_r50_c4.py faster_rcnn_r50_caffe_c4_1x_coco.pth
"""
_base_ = [
    '../_base_/models/faster_rcnn_r50_c4.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
model = dict(
    rpn_head=dict(
        anchor_generator=dict(scales=[2, 4, 8, 16, 32]),
        loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    roi_head=dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0))),
    train_cfg=dict(
        rpn=dict(allowed_border=-1),
        rcnn=dict(sampler=dict(num=512))),
    test_cfg=dict(
        rpn=dict(max_per_img=1000),
        rcnn=dict(nms=dict(iou_threshold=0.5))))
optim_wrapper = dict(optimizer=dict(lr=0.02))
