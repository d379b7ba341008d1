"""RetinaNet, ResNet-50-FPN, 700 px for training and testing, 90k iterations.

Reproduces: Table 1e, R50-700, 121 ms on an M40, 35.1 AP / 54.2 AP50 / 37.7 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1e/r50_700px.py --gpus 8
"""
_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_700px.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime.py',
]
