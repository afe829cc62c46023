# 60 epochs of RSTPReid, then 6,000 iterations of adaptation: 5 to 11 passes of the target.
_base_ = './clip_60e_rstpreid.py'
_source_iters = _base_.train_cfg.max_iters
train_cfg = dict(max_iters=_source_iters + 6000)
train_dataloader = dict(
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(
        type='CrossDomainSampler',
        source_iters=_source_iters,
        batch_size=_base_.train_dataloader.batch_size,
    ),
)
param_scheduler = [
    *_base_.param_scheduler,
    dict(type='AdaptationLR', by_epoch=False, begin=_source_iters, warmup=600),
]
