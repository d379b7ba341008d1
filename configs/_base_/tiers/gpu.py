"""Shapes of 512 pixels and a RetinaNet-18 with the paper's heads and anchors, from nothing.

A tier is the text that `fldet paper run` puts below a row; see laptop.py. At 512 pixels an image has
39 thousand anchors and 308 negatives for each positive (the laptop's: four thousand and 74), nearer
to the paper's 100 thousand: that imbalance is what the focal loss is about. Pyramid, subnets and
anchors have the paper's sizes; the backbone is small, as no row but those of Table 1e varies it.
As in the laptop tier norms learn, the optimizer is AdamW and gradients are clipped.
Hardware: one GPU, 8 CPU cores for the loader.
Minutes: 8 a run, by its operations (4 TFLOP an iteration); not run yet.
"""
# --- data: 8000 images of 512 pixels, 500 held out
data_root = 'data/shapes_512/'
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
shapes = dict(type='fldet.ShapesDataset', num_train=8000, num_val=500, image_size=512, seed=0)
train_dataloader = dict(
    batch_size=16, num_workers=8, dataset=dict(pipeline=train_pipeline, **shapes))
val_dataloader = dict(batch_size=8, num_workers=4, dataset=dict(pipeline=test_pipeline, **shapes))

# --- size: a small backbone; norms that learn (DEVIATION D11)
model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], norm_cfg=dict(type='BN')),
    bbox_head=dict(norm_cfg=dict(type='GN', num_groups=32)))

# --- schedule: 10 times through the data
train_cfg = dict(max_iters=5000, val_interval=5000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=200, end=5000),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
default_hooks = dict(checkpoint=dict(interval=500))
