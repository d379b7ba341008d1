"""Cross entropy with objects weighted 0.75 (Eq. 3)."""
_base_ = './base.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True, alpha=0.75)))
