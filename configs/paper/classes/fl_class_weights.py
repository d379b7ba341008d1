"""The focal loss with a weight for each class, from how rare it is.

Reproduces: no row of the paper; beside gamma 2 in Table 1b. For the three classes of the tier
photos, with 103, 2443 and 560 boxes to train on: one over the square root of these numbers, times
37.3, so that the mean over the boxes is 1. All entries of a class weigh more, objects or not.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/classes/fl_class_weights.py --gpus 8
"""
_base_ = '../table1b/fl_gamma_2.py'
model = dict(bbox_head=dict(num_classes=3, loss_cls=dict(class_weight=[3.677, 0.755, 1.577])))
