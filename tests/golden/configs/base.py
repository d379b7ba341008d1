"""Twenty steps on Shapes, each loss in the log as it is."""
_base_ = '../../../configs/shapes/retinanet_r18_shapes.py'

shapes = dict(num_train=40, num_val=6, image_size=96)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=shapes)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=shapes)
train_cfg = dict(max_iters=20, val_interval=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=5, end=20),
]
default_hooks = dict(checkpoint=dict(interval=20), logger=dict(interval=1))
log_processor = dict(window_size=1)
