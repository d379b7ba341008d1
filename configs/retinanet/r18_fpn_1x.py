"""RetinaNet, ResNet-18-FPN, 800 px, 90k iterations: the smallest one that people train on COCO.

Reproduces: no row of the paper; MMDetection's counterpart has 31.7 AP (val2017) by its model zoo.
Hardware: 8 GPUs x 2 images, or one GPU with fewer images a step: the learning rate follows.
Train: fldet train configs/retinanet/r18_fpn_1x.py --gpus 8
"""
_base_ = './r50_fpn_1x.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
