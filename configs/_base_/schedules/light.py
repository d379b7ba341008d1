# For light models that start from ImageNet weights on a CPU (DEVIATION D45): SGD with four times the
# paper's rate for steps of 4 images, a short warm-up, a cosine to zero, gradients clipped.
# A config with other iterations sets max_iters and the end of the cosine.
_base_ = './schedule_1x.py'
train_cfg = dict(max_iters=1000, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=100, end=1000),
]
optim_wrapper = dict(clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(base_batch_size=4)
