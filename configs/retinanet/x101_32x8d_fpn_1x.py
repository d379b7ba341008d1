"""RetinaNet, ResNeXt-101-32x8d-FPN, 800 px, 90k iterations.

Reproduces: no row of the paper; Table 2 has it with scale jitter and 1.5 times the iterations.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/retinanet/x101_32x8d_fpn_1x.py --gpus 8
"""
_base_ = './r101_fpn_1x.py'
model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnext101_32x8d')))
