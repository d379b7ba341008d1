# OHEM in place of the focal loss (Sec. 5.1): cross entropy over the hardest anchors. What the paper
# leaves open has the defaults of fldet.OHEM, spelt out here (DEVIATION D14).
_base_ = '../../table1e/r101_600px.py'
model = dict(
    bbox_head=dict(loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True)),
    train_cfg=dict(
        miner=dict(
            type='fldet.OHEM',
            per='image',
            nms_on='anchors',
            class_agnostic=True,
            score='cls',
            divisor='selected')))
