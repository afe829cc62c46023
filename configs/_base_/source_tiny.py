# The tiny model from SynthCLIP-tiny, whose vocabulary comes with its weights, on the source
# alone: 400 iterations of 64 pairs, a minute or two on two cores.
_base_ = [
    './models/dual_encoder_tiny.py',
    './schedules/adamw_600.py',
    './default_runtime.py',
]
load_from = 'gckd_mm://synthclip_tiny_web'
train_cfg = dict(max_iters=400)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=400),
]
