"""1 anchor at each location: 1 scale per octave x 1 aspect ratio.

Reproduces: Table 1c, 1 scale x 1 ratio, R50-600, 30.3 AP / 49.0 AP50 / 31.8 AP75 (minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1c/anchors_1x1.py --gpus 8
"""
_base_ = '../table1e/r50_600px.py'
model = dict(bbox_head=dict(anchor_generator=dict(num_scales=1, ratios=[1.0])))
