"""RetinaNet, ResNet-101-FPN, 600 px for training and testing, 90k iterations.

Reproduces: Table 1e, R101-600, 122 ms on an M40, 36.0 AP / 55.2 AP50 / 38.7 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r101_600px.py --gpus 8
"""
_base_ = './r50_600px.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
