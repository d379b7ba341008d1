"""Faster R-CNN by G-RMI, Inception-ResNet-v2, 600 px, 1.35M images one by one.

Reproduces: Table 2, Faster R-CNN by G-RMI, 34.7 AP / 55.5 AP50 / 36.7 AP75 (test-dev).
Hardware: 8 GPUs x 1 image; the authors 9 workers x 1 image.
Train: fldet train configs/systems/grmi_inception_resnet_v2.py --gpus 8
Test:  fldet test configs/systems/grmi_inception_resnet_v2.py work_dirs/grmi_inception_resnet_v2
"""
_base_ = [
    '../_base_/models/grmi_inception_resnet_v2.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = (1024, 600)
test_pipeline[1]['scale'] = (1024, 600)
train_dataloader = dict(batch_size=1, batch_sampler=None, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# DEVIATION D39: steps of 8 images and 8 times the rate, for 8 steps of the authors' workers.
train_cfg = dict(max_iters=168750, val_interval=16875)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.125, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=168750,
        by_epoch=False,
        milestones=[112500, 150000],
        gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(lr=0.008, weight_decay=0.0),
    clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(base_batch_size=8)
