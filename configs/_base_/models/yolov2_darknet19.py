# YOLOv2 with the settings of the authors' yolov2.cfg (arXiv 1612.08242); departures are in
# docs/evidence/deviations.md.
norm_cfg = dict(type='BN', momentum=0.01, eps=1e-5)
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0.0, 0.0, 0.0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
        # DEVIATION D28: an image of a test is at the upper left, grey only to the next multiple.
        pad_size_divisor=32,
        pad_value=0.5,
        # DEVIATION D30: the batch is resized, not each image.
        batch_augments=[
            dict(
                type='fldet.SizeByIteration',
                smallest=320,
                largest=608,
                step=32,
                interval=10,
                last=200)
        ]),
    backbone=dict(type='fldet.DarkNet19', base_channels=32, norm_cfg=norm_cfg),
    # DEVIATION D27: 64 channels after a 1x1 convolution are passed through.
    neck=dict(
        type='fldet.PassthroughNeck',
        in_channels=(512, 1024),
        out_channels=1024,
        passthrough_channels=64,
        norm_cfg=norm_cfg),
    bbox_head=dict(
        type='fldet.YOLOv2Head',
        # The classes of the data set replace this number when a run starts.
        num_classes=80,
        in_channels=1024,
        # in cells of 32 px
        priors=[
            (0.57273, 0.677385),
            (1.87446, 2.06253),
            (3.33843, 5.47434),
            (7.88282, 3.52778),
            (9.77052, 9.16828),
        ],
        stride=32),
    train_cfg=dict(
        object_scale=5.0,
        no_object_scale=1.0,
        coord_scale=1.0,
        class_scale=1.0,
        ignore_iou=0.6,
        rescore=True,
        prior_images=12800,
        max_truths=30),
    # DEVIATION D32: a thousand boxes of an image before the suppression, a hundred after it.
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.005,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=100))
