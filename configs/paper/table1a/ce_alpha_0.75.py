"""Cross entropy with objects weighted 0.75 and background 0.25 (Eq. 3).

Reproduces: Table 1a, alpha .75, R50-600, 31.1 AP / 49.4 AP50 / 33.0 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1a/ce_alpha_0.75.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True, alpha=0.75)))
