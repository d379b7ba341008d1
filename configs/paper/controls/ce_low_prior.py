"""Cross entropy that starts nearer to the share of positives, divided by a moving average.

Reproduces: no row of the paper; beside cross entropy with its prior. Of all scores of an image,
anchors times classes, one in 1e5 (COCO) to 1e3 (small data sets) is of a positive.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/controls/ce_low_prior.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(
    bbox_head=dict(
        prior_prob=0.0001,
        normalizer=dict(type='fldet.MovingAverageCount'),
        loss_cls=dict(_delete_=True, type='fldet.CrossEntropyLoss', use_sigmoid=True)))
