"""RetinaNet, ResNet-50-FPN, 400 px for training and testing, 90k iterations.

Reproduces: Table 1e, R50-400, 64 ms on an M40, 30.5 AP / 47.8 AP50 / 32.7 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r50_400px.py --gpus 8
"""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_400px.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime.py',
]
