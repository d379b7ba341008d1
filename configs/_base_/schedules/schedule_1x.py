# The paper's schedule (Sec. 4.1): 90k iterations of 16 images, lr 0.01, a tenth from 60k and from 80k.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=90000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    # DEVIATION D5: warm-up as in the authors' code; the paper does not mention one.
    dict(type='LinearLR', start_factor=1.0 / 3.0, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=90000,
        by_epoch=False,
        milestones=[60000, 80000],
        gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001))
# lr is meant for this many images per step; it follows the real number by the linear rule.
auto_scale_lr = dict(enable=True, base_batch_size=16)

# An average of the weights, two ends before the last iteration, batches of a step: docs/own-data.md
ema = False
early_stopping = False
max_time = None
accumulate = 1
