"""torchvision's second RetinaNet-R50, to load and test its published checkpoint.

Reproduces: torchvision's retinanet_resnet50_fpn_v2, COCO_V1, 41.5 AP (val2017), as its authors
report. Against the first one P6 comes from C5, the subnets have group norms, the box loss is GIoU
and norms have the usual eps. To train such a model, r50_fpn_modern.py.
Test: python tools/convert_retinanet.py retinanet_resnet50_fpn_v2_coco-5905b1c5.pth torchvision.pth, then
      fldet test configs/retinanet/torchvision_r50_fpn_v2.py torchvision.pth
"""
_base_ = './torchvision_r50_fpn.py'
model = dict(
    backbone=dict(norm_cfg=dict(eps=1e-5)),
    neck=dict(add_extra_convs='on_input'),
    bbox_head=dict(
        norm_cfg=dict(type='GN', num_groups=32),
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=1.0)))
