# Faster R-CNN on the maps of conv4_x (He et al., arXiv 1512.03385, Appendix A; Ren et al., arXiv
# 1506.01497): an RPN of 12 anchors at stride 16, and conv5_x for each of its proposals.
# DEVIATION D35: what the paper leaves open.
_base_ = './two_stage.py'
model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32),
    # The paper's own network (BGR, stride in the 1x1 convolution), its batch norms fixed.
    # DEVIATION D2: what else is frozen.
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2, ),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe')),
    rpn_head=dict(
        type='fldet.RPNHead',
        in_channels=1024,
        feat_channels=1024,
        # 64, 128, 256 and 512 pixels
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4, 8, 16, 32], ratios=[0.5, 1.0, 2.0], strides=[16])),
    roi_head=dict(
        shared_head=dict(
            type='fldet.ResLayer',
            depth=50,
            stage=3,
            stride=2,
            style='caffe',
            norm_cfg=dict(type='BN', requires_grad=False),
            norm_eval=True,
            init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe')),
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            # DEVIATION D34: the paper takes the maximum (RoI pooling).
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=1024,
            featmap_strides=[16]),
        bbox_head=dict(
            type='BBoxHead',
            with_avg_pool=True,
            roi_feat_size=7,
            in_channels=2048)),
    train_cfg=dict(
        # Anchors that cross the border of the image do not learn (Ren et al., Sec. 3.3).
        # DEVIATION D35: where the image holds none, all do.
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(nms_pre=12000)),
    test_cfg=dict(rcnn=dict(nms=dict(iou_threshold=0.3))))
