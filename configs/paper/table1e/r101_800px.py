"""RetinaNet, ResNet-101-FPN, 800 px for training and testing, 90k iterations.

Reproduces: Table 1e, R101-800, 198 ms on an M40, 37.8 AP / 57.5 AP50 / 40.8 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r101_800px.py --gpus 8
"""
_base_ = '../../retinanet/r101_fpn_1x.py'
