"""OHEM: the 256 hardest anchors of an image after NMS at 0.7.

Reproduces: Table 1d, OHEM, batch size 256, nms .7, R101-600, 31.8 AP / 48.8 AP50 / 33.9 AP75
(minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1d/ohem_256_0.7.py --gpus 8
"""
_base_ = './_base_/ohem_r101_600px.py'
model = dict(train_cfg=dict(miner=dict(num_examples=256, iou_threshold=0.7)))
