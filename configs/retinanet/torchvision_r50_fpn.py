"""torchvision's first RetinaNet-R50, to load and test its published checkpoint.

Reproduces: torchvision's retinanet_resnet50_fpn, COCO_V1, 36.4 AP (val2017), as its authors report.
It differs from the paper: P6 comes from P5, anchors are in whole pixels, L1 instead of smooth L1,
300 detections; norms of this checkpoint have eps 0.
Test: python tools/convert_retinanet.py retinanet_resnet50_fpn_coco-eeacb38b.pth torchvision.pth, then
      fldet test configs/retinanet/torchvision_r50_fpn.py torchvision.pth
"""
_base_ = './r50_fpn_1x.py'
model = dict(
    backbone=dict(norm_cfg=dict(eps=0.0)),
    neck=dict(add_extra_convs='on_output'),
    bbox_head=dict(
        anchor_generator=dict(type='fldet.TorchvisionAnchorGenerator'),
        loss_bbox=dict(_delete_=True, type='L1Loss', loss_weight=1.0)),
    test_cfg=dict(min_bbox_size=-1, max_per_img=300))
