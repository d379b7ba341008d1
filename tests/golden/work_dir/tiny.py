accumulate = 1
amp = None
auto_scale_lr = dict(base_batch_size=8, enable=False)
channels_last = False
classes = None
compile = False
custom_hooks = [dict(interval=50, type="fldet.ProgressHook")]
custom_imports = dict(allow_failed_imports=False, imports=["fldet"])
data_root = "data/shapes/"
default_hooks = dict(
    checkpoint=dict(
        interval=10,
        max_keep_ckpts=2,
        rule="greater",
        save_best="coco/AP",
        type="fldet.CheckpointHook",
    ),
    logger=dict(interval=1, log_metric_by_epoch=False, type="fldet.LoggerHook"),
    param_scheduler=dict(type="ParamSchedulerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    timer=dict(type="IterTimerHook"),
)
default_scope = "mmdet"
early_stopping = False
ema = False
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend="nccl", timeout=1800),
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
)
experiment_name = "tiny_1"
fold_batch_norms = False
gradient_checkpointing = False
launcher = "none"
load_from = None
log_level = "INFO"
log_processor = dict(by_epoch=False, type="LogProcessor", window_size=1)
max_time = None
model = dict(
    backbone=dict(
        base_channels=4,
        depth=18,
        frozen_stages=-1,
        init_cfg=None,
        norm_cfg=dict(requires_grad=True, type="BN"),
        norm_eval=False,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        style="pytorch",
        type="ResNet",
    ),
    bbox_head=dict(
        anchor_generator=dict(
            num_scales=3,
            ratios=[0.5, 1.0, 2.0],
            sizes=[24, 48, 96, 192, 384],
            strides=[8, 16, 32, 64, 128],
            type="fldet.AnchorGenerator",
        ),
        bbox_coder=dict(
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
            type="DeltaXYWHBBoxCoder",
        ),
        feat_channels=16,
        in_channels=16,
        loss_bbox=dict(beta=0.1111111111111111, loss_weight=1.0, type="SmoothL1Loss"),
        loss_cls=dict(
            alpha=0.25,
            gamma=2.0,
            loss_weight=1.0,
            type="fldet.FocalLoss",
            use_sigmoid=True,
        ),
        norm_cfg=dict(num_groups=4, type="GN"),
        normalizer=dict(type="fldet.CountOverRanks"),
        num_classes=6,
        prior_prob=0.01,
        stacked_convs=1,
        type="fldet.RetinaHead",
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[123.675, 116.28, 103.53],
        pad_size_divisor=32,
        std=[58.395, 57.12, 57.375],
        type="DetDataPreprocessor",
    ),
    neck=dict(
        add_extra_convs="on_input",
        in_channels=[4, 8, 16, 32],
        norm_cfg=dict(type="BN"),
        num_outs=5,
        out_channels=16,
        relu_before_extra_convs=True,
        start_level=1,
        type="FPN",
    ),
    test_cfg=dict(
        max_per_img=100,
        min_bbox_size=0,
        nms=dict(iou_threshold=0.5, type="nms"),
        nms_pre=1000,
        score_thr=0.05,
    ),
    train_cfg=dict(
        allowed_border=-1,
        assigner=dict(
            ignore_iof_thr=-1,
            min_pos_iou=0,
            neg_iou_thr=0.4,
            pos_iou_thr=0.5,
            type="fldet.MaxIoUAssigner",
        ),
        debug=False,
        pos_weight=-1,
        sampler=dict(type="PseudoSampler"),
    ),
    type="RetinaNet",
)
optim_wrapper = dict(
    clip_grad=dict(max_norm=10.0),
    optimizer=dict(lr=0.00075, type="AdamW", weight_decay=0.05),
    type="OptimWrapper",
)
param_scheduler = [
    dict(begin=0, by_epoch=False, end=5, start_factor=0.1, type="LinearLR"),
    dict(begin=5, by_epoch=False, end=20, eta_min=0.0, type="CosineAnnealingLR"),
]
randomness = dict(seed=0)
resume = False
shapes = dict(image_size=96, num_train=40, num_val=6, seed=0, type="fldet.ShapesDataset")
skip_nonfinite = 0
test_cfg = dict(type="TestLoop")
test_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        data_root="data/shapes/",
        image_size=96,
        metainfo=dict(classes=("disc", "box", "triangle", "star", "ring", "cross")),
        num_train=40,
        num_val=6,
        pipeline=[
            dict(type="fldet.LoadImageFromFile"),
            dict(scale_factor=1.0, type="Resize"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
                type="fldet.PackDetInputs",
            ),
        ],
        seed=0,
        test_mode=True,
        type="fldet.ShapesDataset",
    ),
    drop_last=False,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type="DefaultSampler"),
)
test_evaluator = dict(
    ann_file="data/shapes/annotations/instances_val2017.json",
    type="fldet.CocoMetric",
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(scale_factor=1.0, type="Resize"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
        type="fldet.PackDetInputs",
    ),
]
train_cfg = dict(max_iters=20, type="IterBasedTrainLoop", val_interval=20)
train_dataloader = dict(
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    batch_size=2,
    dataset=dict(
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        data_root="data/shapes/",
        image_size=96,
        max_broken_images=10,
        metainfo=dict(classes=("disc", "box", "triangle", "star", "ring", "cross")),
        num_train=40,
        num_val=6,
        pipeline=[
            dict(type="fldet.LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(prob=0.5, type="fldet.RandomFlip"),
            dict(type="fldet.PackDetInputs"),
        ],
        seed=0,
        type="fldet.ShapesDataset",
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=True, type="InfiniteSampler"),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(prob=0.5, type="fldet.RandomFlip"),
    dict(type="fldet.PackDetInputs"),
]
val_cfg = dict(type="ValLoop")
val_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        data_root="data/shapes/",
        image_size=96,
        metainfo=dict(classes=("disc", "box", "triangle", "star", "ring", "cross")),
        num_train=40,
        num_val=6,
        pipeline=[
            dict(type="fldet.LoadImageFromFile"),
            dict(scale_factor=1.0, type="Resize"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
                type="fldet.PackDetInputs",
            ),
        ],
        seed=0,
        test_mode=True,
        type="fldet.ShapesDataset",
    ),
    drop_last=False,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type="DefaultSampler"),
)
val_evaluator = dict(
    ann_file="data/shapes/annotations/instances_val2017.json",
    type="fldet.CocoMetric",
)
visualizer = dict(
    name="tiny_1",
    type="DetLocalVisualizer",
    vis_backends=[dict(type="LocalVisBackend")],
)
work_dir = "work_dir"
