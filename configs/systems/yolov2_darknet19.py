"""YOLOv2, DarkNet-19, 544 px.

Reproduces: Table 2, YOLOv2, 21.6 AP / 44.0 AP50 / 19.2 AP75 / 5.0 AP small / 22.4 / 35.5 (test-dev).
Hardware: 8 GPUs x 8 images. The authors begin with a classifier of ImageNet, darknet19_448.conv.23:
  python tools/convert_darknet.py yolov2.cfg darknet19_448.conv.23 darknet19.pth
Train: fldet train configs/systems/yolov2_darknet19.py --gpus 8 --cfg-options load_from=darknet19.pth
Test:  fldet test configs/systems/yolov2_darknet19.py work_dirs/yolov2_darknet19
"""
_base_ = [
    '../_base_/models/yolov2_darknet19.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]

# The paper's augmentation: a canvas of 608 px, which the model's batch_augments resize to 320 to 608.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='fldet.PlaceOnGrey', scale=(608, 608), jitter=0.3),
    dict(type='fldet.DistortHSV', hue=0.1, saturation=1.5, exposure=1.5),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
# DEVIATION D29: 544 px for the numbers of Table 2; (608, 608) for the authors' weights.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(544, 544), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8, num_workers=8, batch_sampler=None, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# DEVIATION D31: the schedule of the authors' yolov2.cfg for COCO, with a linear warm-up.
train_cfg = dict(max_iters=500200, val_interval=20000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        begin=0,
        end=500200,
        by_epoch=False,
        milestones=[400000, 450000],
        gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(lr=0.001, momentum=0.9, weight_decay=0.0005),
    # darknet decays weights of convolutions alone
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
auto_scale_lr = dict(base_batch_size=64)
