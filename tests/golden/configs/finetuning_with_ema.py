"""Goes on from the weights of another run, the stem fixed, with averaged weights."""
_base_ = './base.py'
model = dict(backbone=dict(frozen_stages=1, norm_eval=True))
ema = True
