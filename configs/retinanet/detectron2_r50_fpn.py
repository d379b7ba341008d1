"""Detectron2's RetinaNet-R50, to load and test its published checkpoints.

Reproduces: Detectron2's RetinaNet R_50_FPN_3x, 38.7 AP (val2017; 1x: 37.4), by its model zoo. It
differs from the paper's config here: MSRA's ResNet (BGR pixels, stride in the 1x1 convolution), L1
instead of smooth L1.
Test: python tools/convert_retinanet.py model_final_5bd44e.pkl detectron2.pth, then
      fldet test configs/retinanet/detectron2_r50_fpn.py detectron2.pth
"""
_base_ = './r50_fpn_1x.py'
model = dict(
    data_preprocessor=dict(
        mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        norm_cfg=dict(requires_grad=False),
        style='caffe',
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnet50_caffe')),
    bbox_head=dict(loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    test_cfg=dict(min_bbox_size=-1))
