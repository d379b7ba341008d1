"""RetinaNet, ResNet-50-FPN, 600 px for training and testing, 90k iterations.

Reproduces: Table 1e, R50-600, 98 ms on an M40, 34.3 AP / 53.2 AP50 / 36.9 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r50_600px.py --gpus 8
"""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_600px.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime.py',
]
