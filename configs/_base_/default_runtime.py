default_scope = 'mmdet'
custom_imports = dict(imports=['fldet'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='fldet.CheckpointHook',
        interval=5000,
        max_keep_ckpts=2,
        save_best='coco/AP',
        rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [dict(type='fldet.ProgressHook', interval=50)]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # timeout: seconds that a process waits for the others
    dist_cfg=dict(backend='nccl', timeout=1800))

visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'
randomness = dict(seed=0)
# A loss that is not finite stops the run; up to so many such batches are passed over instead.
skip_nonfinite = 0
# Training steps that are faster, or smaller in memory: docs/faster-training.md says what each does.
amp = None  # as optim_wrapper says
channels_last = False
fold_batch_norms = False
compile = False
gradient_checkpointing = False
# Steps that are put into the pipeline of train_dataloader: 'small', for hundreds of images,
# 'medium', for thousands. docs/fitting.md says what each does, and oversample.
augment = 'none'
# Images of classes that fewer than this share of the images show are trained on more often.
oversample = None
# 'fast' decodes JPEGs that are made much smaller anyway at a half, a quarter or an eighth.
decoder = 'exact'
load_from = None
resume = False
