# For a detector that starts from a trained one (load_from): a quarter of the paper's rate, constant
# after a short warm-up. The average of the weights does what a falling rate does elsewhere, so that
# the run may end at any validation: once they stop improving, or by max_time.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=5000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100)]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.0025, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(enable=True, base_batch_size=16)

ema = True
early_stopping = 5
max_time = None
accumulate = 1
