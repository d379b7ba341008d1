"""RetinaNet, ResNet-101-FPN, 800 px, 90k iterations.

Reproduces: Table 1e, R101-800, 37.8 AP / 57.5 AP50 / 40.8 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/retinanet/r101_fpn_1x.py --gpus 8
"""
_base_ = './r50_fpn_1x.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
