# 60 epochs of RSTPReid, then 6,000 iterations of adaptation: 5 to 11 passes of the target.
_base_ = './clip_60e_rstpreid.py'
train_cfg = dict(
    _delete_=True,
    type='TwoStageTrainLoop',
    source_iters=_base_.train_cfg.max_iters,
    adapt_iters=6000,
)
train_dataloader = dict(
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(type='CrossDomainSampler'),
)
# Bounds are fractions of the source stage; the adaptation has a schedule of its own.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5 / 60),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5 / 60),
    dict(type='AdaptationLR', by_epoch=False, warmup=0.1),
]
