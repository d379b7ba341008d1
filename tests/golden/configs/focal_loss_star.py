"""FL* with gamma 2 and beta 1 (Appendix A)."""
_base_ = './base.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='fldet.FocalLossStar',
            use_sigmoid=True,
            gamma=2.0,
            beta=1.0,
            alpha=0.25)))
