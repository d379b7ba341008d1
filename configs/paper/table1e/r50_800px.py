"""RetinaNet, ResNet-50-FPN, 800 px for training and testing, 90k iterations.

Reproduces: Table 1e, R50-800, 153 ms on an M40, 35.7 AP / 55.0 AP50 / 38.5 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r50_800px.py --gpus 8
"""
_base_ = '../../retinanet/r50_fpn_1x.py'
