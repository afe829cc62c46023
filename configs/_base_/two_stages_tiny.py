# The tiny model, from SynthCLIP-tiny: 400 iterations on the source alone, which are those
# of the source-only baseline, then 300 of adaptation to the target.
_base_ = [
    './models/dual_encoder_tiny.py',
    './schedules/source_400.py',
    './synthclip_runtime.py',
]
_source_iters = _base_.train_cfg.max_iters
_batch_size = 64

model = dict(source_iters=_source_iters)
train_dataloader = dict(
    batch_size=_batch_size,
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(
        type='CrossDomainSampler', source_iters=_source_iters, batch_size=_batch_size
    ),
)
train_cfg = dict(max_iters=_source_iters + 300)
param_scheduler = [
    *_base_.param_scheduler,
    dict(
        type='AdaptationLR',
        by_epoch=False,
        begin=_source_iters,
        warmup=30,
    ),
]
default_hooks = dict(adaptation=dict(type='AdaptationHook'))
# What adapts has no gradient in the source stage.
find_unused_parameters = True
