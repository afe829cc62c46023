# The source stage from a pretrained start: 400 iterations of 64 pairs, a minute or two
# on two cores.
_base_ = './adamw_600.py'
_source_iters = 400
train_cfg = dict(max_iters=_source_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=_source_iters),
]
