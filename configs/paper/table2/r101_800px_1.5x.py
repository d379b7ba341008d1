"""RetinaNet, ResNet-101-FPN, 800 px, scale jitter, 135k iterations.

Reproduces: Table 2, RetinaNet ResNet-101-FPN, 39.1 AP / 59.1 AP50 / 42.3 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table2/r101_800px_1.5x.py --gpus 8
"""
_base_ = '../../retinanet/r101_fpn_1.5x.py'
