"""RetinaNet, ResNet-101-FPN, 500 px for training and testing, 90k iterations.

Reproduces: Table 1e, R101-500, 90 ms on an M40, 34.4 AP / 53.1 AP50 / 36.8 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r101_500px.py --gpus 8
"""
_base_ = './r50_500px.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
