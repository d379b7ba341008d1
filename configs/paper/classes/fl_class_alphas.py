"""The focal loss with an alpha for each class, from how rare it is.

Reproduces: no row of the paper; beside gamma 2 in Table 1b. For the three classes of the tier
photos: the odds alpha / (1 - alpha) are those of .25, times the weights in fl_class_weights.py
(3.677, 0.755, 1.577), so that alpha stays below 1. Of a rare class objects alone weigh more.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/classes/fl_class_alphas.py --gpus 8
"""
_base_ = '../table1b/fl_gamma_2.py'
model = dict(bbox_head=dict(num_classes=3, loss_cls=dict(alpha=[0.551, 0.201, 0.345])))
