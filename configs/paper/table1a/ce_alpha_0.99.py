"""Cross entropy with objects weighted 0.99 and background 0.01 (Eq. 3).

Reproduces: Table 1a, alpha .99, R50-600, 28.7 AP / 47.4 AP50 / 29.9 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1a/ce_alpha_0.99.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True, alpha=0.99)))
