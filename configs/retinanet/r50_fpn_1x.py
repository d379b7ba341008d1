"""RetinaNet, ResNet-50-FPN, 800 px, 90k iterations.

Reproduces: Table 1e, R50-800, 35.7 AP / 55.0 AP50 / 38.5 AP75 (test-dev).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/retinanet/r50_fpn_1x.py --gpus 8
Test:  fldet test configs/retinanet/r50_fpn_1x.py work_dirs/r50_fpn_1x
"""
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
