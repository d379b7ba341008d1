"""FL* with gamma = 4, beta = 0, alpha = 0.25 (Appendix A).

Reproduces: Table 3, FL* gamma 4, beta 0, R50-600, 33.9 AP / 51.8 AP50 / 36.4 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table3/fl_star_gamma_4_beta_0.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='fldet.FocalLossStar',
            use_sigmoid=True,
            gamma=4.0,
            beta=0.0,
            alpha=0.25)))
