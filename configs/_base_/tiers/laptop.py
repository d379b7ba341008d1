"""Shapes, drawn at the first use, and a small RetinaNet that trains from nothing in minutes.

A tier is the text that `fldet paper run` puts below a row: what stands here replaces the row's own,
and nothing else changes. The values are those of configs/shapes/retinanet_r18_shapes.py: ResNet-18
of half the channels, pyramid and subnets of 64, batch and group norms that learn, AdamW, gradients
clipped at a norm of 10. All rows have one learning rate and one schedule.
Hardware: one CPU core for each run, no GPU.
Minutes: 4.2 a run, two at a time on two x86 cores (median of Table 1b, seed 0); OHEM takes longer.
"""
# --- data: 1600 images of 160 pixels, 200 held out
data_root = 'data/shapes/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
shapes = dict(type='fldet.ShapesDataset', num_train=1600, num_val=200, image_size=160, seed=0)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline, **shapes))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline, **shapes))

# --- size: fewer layers and channels, norms that learn (DEVIATION D11), anchors for small images
model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=dict(type='BN')),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(sizes=[24, 48, 96, 192, 384])))

# --- schedule: 6 times through the data
train_cfg = dict(max_iters=1200, val_interval=1200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end=1200),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.003, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=200))
