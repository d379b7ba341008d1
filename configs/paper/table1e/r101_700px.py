"""RetinaNet, ResNet-101-FPN, 700 px for training and testing, 90k iterations.

Reproduces: Table 1e, R101-700, 154 ms on an M40, 37.1 AP / 56.6 AP50 / 39.8 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r101_700px.py --gpus 8
"""
_base_ = './r50_700px.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
