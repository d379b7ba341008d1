"""3 anchors at each location: 1 scale per octave x 3 aspect ratios.

Reproduces: Table 1c, 1 scale x 3 ratios, R50-600, 32.4 AP / 52.3 AP50 / 33.9 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1c/anchors_1x3.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(anchor_generator=dict(num_scales=1, ratios=[0.5, 1.0, 2.0])))
