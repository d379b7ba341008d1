"""RetinaNet, ResNeXt-101-32x8d-FPN, 800 px, scale jitter, 135k iterations.

Reproduces: Table 2, RetinaNet ResNeXt-101-FPN, 40.8 AP / 61.1 AP50 / 44.1 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/retinanet/x101_32x8d_fpn_1.5x.py --gpus 8
"""
_base_ = './r101_fpn_1.5x.py'
model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnext101_32x8d')))
