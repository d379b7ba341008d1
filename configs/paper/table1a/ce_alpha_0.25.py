"""Cross entropy with objects weighted 0.25 and background 0.75 (Eq. 3).

Reproduces: Table 1a, alpha .25, R50-600, 10.8 AP / 16.0 AP50 / 11.7 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1a/ce_alpha_0.25.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True, alpha=0.25)))
