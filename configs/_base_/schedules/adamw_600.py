train_cfg = dict(type='IterBasedTrainLoop', max_iters=600)
test_cfg = dict(type='RetrievalTestLoop')
test_evaluator = dict(type='PersonRetrievalMetric')

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    sampler=dict(type='PairedSampler'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=600),
]
