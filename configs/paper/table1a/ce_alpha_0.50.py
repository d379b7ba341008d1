"""Cross entropy with objects weighted 0.50 and background 0.5 (Eq. 3).

Reproduces: Table 1a, alpha .50, R50-600, 30.2 AP / 46.7 AP50 / 32.8 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1a/ce_alpha_0.50.py --gpus 8
"""
# DEVIATION D15: half of plain cross entropy, by the formula; see controls/ce_with_prior.py.
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True, alpha=0.5)))
