"""OHEM 1:3, the 64 hardest anchors of an image (Sec. 5.1)."""
_base_ = './base.py'
model = dict(
    bbox_head=dict(loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True)),
    train_cfg=dict(
        miner=dict(type='fldet.OHEM', num_examples=64, iou_threshold=0.5, neg_pos_ratio=3)))
