"""Cross entropy, every anchor starting at a score of one half.

Reproduces: the run of Sections 4.1 and 5.1 that diverges; no figures.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/controls/ce_without_prior.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        prior_prob=None,
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True)))
