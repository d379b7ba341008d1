# Faster R-CNN with a feature pyramid (Lin et al., arXiv 1612.03144, Sec. 4 and 5): an RPN that all
# levels share, RoIs pooled from P2 to P5, two fully connected layers of 1024.
_base_ = './two_stage.py'
model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    # DEVIATION D1, D2: weights, and what of them is frozen.
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    # P6 is every second point of P5, and for RPN alone.
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    rpn_head=dict(
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(
            type='fldet.AnchorGenerator',
            sizes=[32, 64, 128, 256, 512],
            num_scales=1,
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            # DEVIATION D20: the paper takes the maximum (RoI pooling).
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
            # P4 for 224 pixels, as Eq. 1 of the paper: 56 at P2
            finest_scale=56),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=512))),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=1000)))
