"""DSSD513, ResNet-101: SSD513 with its maps carried up again, in a decoder of its own.

Reproduces: Table 2, DSSD513, 33.2 AP / 53.3 AP50 / 35.2 AP75 (test-dev).
Hardware: 8 GPUs x 4 images, after a training of ssd513_r101.
Train: fldet train configs/systems/dssd513_r101.py --gpus 8
Test:  fldet test configs/systems/dssd513_r101.py work_dirs/dssd513_r101
"""
_base_ = './ssd513_r101.py'
load_from = 'work_dirs/ssd513_r101/iter_250000.pth'
model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True, init_cfg=None),
    neck=dict(
        type='fldet.DeconvolutionNeck',
        widths=(256, 256, 256, 256, 256, 256, 256),
        decoder_channels=512,
        up_kernel_sizes=(2, 2, 2, 2, 2, 2),
        up_strides=(2, 2, 2, 2, 2, 1),
        freeze_encoder=True),
    bbox_head=dict(
        in_channels=(1024, 1024, 1024, 1024, 1024, 1024, 1024),
        stacked_convs=1,
        feat_channels=512,
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.001),
        act_cfg=dict(type='ReLU')))

# DEVIATION D25: the norms of the decoder see four images at a time, the authors' one.
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_iters=150000, val_interval=25000)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=150000,
        by_epoch=False,
        milestones=[80000, 130000],
        gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=32)
