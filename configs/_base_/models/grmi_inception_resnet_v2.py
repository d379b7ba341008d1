# Faster R-CNN of Huang et al. (G-RMI, arXiv 1611.10012) on Inception-ResNet-v2: its first half for
# the image, a crop of 17 x 17 points for each of 300 proposals, its second half for each crop. What
# the paper leaves open is that of faster_rcnn_inception_resnet_v2_atrous_coco, which they released.
_base_ = './two_stage.py'
norm_cfg = dict(type='BN', eps=0.001, requires_grad=False)
# DEVIATION D41: timm's copy of TensorFlow's weights; each half takes its own.
weights = dict(
    type='Pretrained',
    checkpoint='https://github.com/huggingface/pytorch-image-models/releases/download/'
    'v0.1-weights/inception_resnet_v2-940b1cd6.pth')
model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_size_divisor=1),
    # DEVIATION D38: stride 8, the dilation of RPN, boxes of twice the weight of classes.
    backbone=dict(
        type='fldet.InceptionResNetV2',
        stride=8,
        padding='same',
        repeats=(10, 20),
        width=1.0,
        norm_cfg=norm_cfg,
        norm_eval=True,
        init_cfg=weights),
    rpn_head=dict(
        type='fldet.RPNHead',
        in_channels=1088,
        feat_channels=512,
        dilation=2,
        # sides of 64 to 512 pixels
        anchor_generator=dict(
            type='AnchorGenerator', scales=[8, 16, 32, 64], ratios=[0.5, 1.0, 2.0], strides=[8]),
        bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_bbox=dict(beta=1.0, loss_weight=2.0)),
    roi_head=dict(
        bbox_roi_extractor=dict(
            type='fldet.CropRoIExtractor', crop_size=17, out_channels=1088, featmap_strides=[8]),
        shared_head=dict(
            type='fldet.InceptionResNetV2SharedHead',
            repeats=9,
            width=1.0,
            norm_cfg=norm_cfg,
            norm_eval=True,
            init_cfg=weights),
        bbox_head=dict(
            type='BBoxHead',
            with_avg_pool=True,
            roi_feat_size=8,
            in_channels=1536,
            loss_bbox=dict(loss_weight=2.0))),
    train_cfg=dict(
        # Anchors that leave the image do not learn. DEVIATION D38: where it holds none, all do.
        rpn=dict(assigner=dict(min_pos_iou=0.0), allowed_border=0),
        # DEVIATION D41: the best 6000 boxes go through the suppression, theirs all.
        rpn_proposal=dict(nms_pre=6000, max_per_img=300)),
    test_cfg=dict(rcnn=dict(score_thr=0.0, nms=dict(iou_threshold=0.6))))
