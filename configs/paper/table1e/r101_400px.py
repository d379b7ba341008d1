"""RetinaNet, ResNet-101-FPN, 400 px for training and testing, 90k iterations.

Reproduces: Table 1e, R101-400, 81 ms on an M40, 31.9 AP / 49.5 AP50 / 34.1 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r101_400px.py --gpus 8
"""
_base_ = './r50_400px.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
