# 600 iterations on 64 pairs of the source, 400 of adaptation on 32 of each: what a laptop
# does within the hour. The projections are new and learn ten times faster than the
# pretrained encoders.
_source_iters = 600
_batch_size = 32
test_cfg = dict(type='RetrievalTestLoop')
test_evaluator = dict(type='PersonRetrievalMetric')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=_source_iters + 400)

train_dataloader = dict(
    batch_size=_batch_size,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(
        type='CrossDomainSampler', source_iters=_source_iters, batch_size=_batch_size
    ),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            image_backbone=dict(lr_mult=0.1), text_backbone=dict(lr_mult=0.1)
        )
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=60),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=60, end=_source_iters),
    dict(type='AdaptationLR', by_epoch=False, begin=_source_iters, warmup=40),
]
