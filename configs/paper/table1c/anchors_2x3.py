"""6 anchors at each location: 2 scales per octave x 3 aspect ratios.

Reproduces: Table 1c, 2 scales x 3 ratios, R50-600, 34.2 AP / 53.1 AP50 / 36.5 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1c/anchors_2x3.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(anchor_generator=dict(num_scales=2, ratios=[0.5, 1.0, 2.0])))
