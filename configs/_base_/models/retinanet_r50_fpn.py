# RetinaNet with ResNet-50 and FPN as in the paper (Sec. 4); departures are in docs/evidence/deviations.md.
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    # DEVIATION D1: torchvision's weights (RGB, stride in the 3x3) instead of MSRA's.
    # DEVIATION D2: stem and first stage frozen, batch norm fixed, as in the authors' code.
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
    # P3 to P7: P6 is a stride-2 convolution on C5, P7 the same on ReLU(P6); no P2.
    neck=dict(
        type='FPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs='on_input',
        relu_before_extra_convs=True,
        num_outs=5),
    bbox_head=dict(
        type='fldet.RetinaHead',
        # The classes of the data set replace this number when a run starts.
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        prior_prob=0.01,
        # The sums are divided by the anchors assigned to a box, over all GPUs (DEVIATION D7).
        normalizer=dict(type='fldet.CountOverRanks'),
        anchor_generator=dict(
            type='fldet.AnchorGenerator',
            sizes=[32, 64, 128, 256, 512],
            strides=[8, 16, 32, 64, 128],
            num_scales=3,
            ratios=[0.5, 1.0, 2.0]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(
            type='fldet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        # DEVIATION D3: beta as in the authors' code; the paper only says "smooth L1".
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)),
    train_cfg=dict(
        # Positive from IoU .5, background below .4, in between ignored; besides, the best anchor
        # of each box is positive, as in the RPN rule that the paper refers to (DEVIATION D4).
        assigner=dict(
            type='fldet.MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    # DEVIATION D9: 100 detections of an image. DEVIATION D10: one threshold for all levels.
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100))
