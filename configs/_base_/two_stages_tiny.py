# The tiny model, from SynthCLIP-tiny: 400 iterations on the source alone, which are those
# of the source-only baseline, then 300 of adaptation to the target.
_base_ = [
    './models/dual_encoder_tiny.py',
    './schedules/source_400.py',
    './synthclip_runtime.py',
]
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
