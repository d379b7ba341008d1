"""OHEM: the 128 hardest anchors of an image after NMS at 0.5.

Reproduces: Table 1d, OHEM, batch size 128, nms .5, R101-600, 32.8 AP / 50.3 AP50 / 35.1 AP75
(minival).
Hardware: 8 GPUs x 2 images, as in the paper.
Train: fldet train configs/paper/table1d/ohem_128_0.5.py --gpus 8
"""
_base_ = './_base_/ohem_r101_600px.py'
model = dict(train_cfg=dict(miner=dict(num_examples=128, iou_threshold=0.5)))
