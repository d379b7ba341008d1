"""RetinaNet, ResNet-50-FPN, 500 px for training and testing, 90k iterations.

Reproduces: Table 1e, R50-500, 72 ms on an M40, 32.5 AP / 50.9 AP50 / 34.8 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r50_500px.py --gpus 8
"""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_500px.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime.py',
]
