"""FL* with gamma = 2, beta = 1, alpha = 0.25 (Appendix A).

Reproduces: Table 3, FL* gamma 2, beta 1, R50-600, 33.8 AP / 52.7 AP50 / 36.3 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table3/fl_star_gamma_2_beta_1.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='fldet.FocalLossStar',
            use_sigmoid=True,
            gamma=2.0,
            beta=1.0,
            alpha=0.25)))
