# For small models without pretrained weights (DEVIATION D11): AdamW, warm-up, cosine to zero.
# A config with other iterations sets max_iters and the end of the cosine.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1200, val_interval=600)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=50, end=1200),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.003, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(enable=True, base_batch_size=8)

# An average of the weights, two ends before the last iteration, batches of a step: docs/own-data.md
ema = False
early_stopping = False
max_time = None
accumulate = 1
