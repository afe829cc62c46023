# The source stage of source_tiny.py, then 300 iterations of adaptation to the target.
_base_ = './source_tiny.py'

train_cfg = dict(
    _delete_=True, type='TwoStageTrainLoop', source_iters=400, adapt_iters=300
)
train_dataloader = dict(
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(type='CrossDomainSampler'),
)
# Bounds are fractions of the source stage; the adaptation has a schedule of its own.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=0.125),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0.125),
    dict(type='AdaptationLR', by_epoch=False, warmup=0.1),
]
default_hooks = dict(adaptation=dict(type='AdaptationHook'))
# What adapts has no gradient in the source stage.
find_unused_parameters = True
