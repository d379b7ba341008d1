"""OHEM: the 512 hardest anchors of an image after NMS at 0.7.

Reproduces: Table 1d, OHEM, batch size 512, nms .7, R101-600, 30.6 AP / 47.0 AP50 / 32.6 AP75
(minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1d/ohem_512_0.7.py --gpus 8
"""
_base_ = './_base_/ohem_r101_600px.py'
model = dict(train_cfg=dict(miner=dict(num_examples=512, iou_threshold=0.7)))
