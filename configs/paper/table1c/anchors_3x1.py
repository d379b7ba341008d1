"""3 anchors at each location: 3 scales per octave x 1 aspect ratio.

Reproduces: Table 1c, 3 scales x 1 ratio, R50-600, 31.8 AP / 49.4 AP50 / 33.7 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1c/anchors_3x1.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(anchor_generator=dict(num_scales=3, ratios=[1.0])))
