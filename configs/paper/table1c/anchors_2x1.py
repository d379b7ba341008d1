"""2 anchors at each location: 2 scales per octave x 1 aspect ratio.

Reproduces: Table 1c, 2 scales x 1 ratio, R50-600, 31.9 AP / 50.0 AP50 / 34.0 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1c/anchors_2x1.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(anchor_generator=dict(num_scales=2, ratios=[1.0])))
