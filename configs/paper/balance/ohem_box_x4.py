"""OHEM, 128 examples after NMS at 0.5, with four times the box loss.

Reproduces: no row of the paper; beside OHEM 128/.5 in Table 1d.
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/balance/ohem_box_x4.py --gpus 8
"""
_base_ = '../table1d/ohem_128_0.5.py'
model = dict(bbox_head=dict(loss_bbox=dict(loss_weight=4.0)))
