# EfficientNet-lite0 and MiniLM: 600 iterations on 64 pairs of the source, 400 of adaptation
# on 32 of each, within the hour on a laptop. The projections are new and learn ten times
# faster than the pretrained encoders.
_base_ = ['./models/dual_encoder_minilm_lite0.py', './large_runtime.py']

test_cfg = dict(type='RetrievalTestLoop')
test_evaluator = dict(type='PersonRetrievalMetric')
train_cfg = dict(type='TwoStageTrainLoop', source_iters=600, adapt_iters=400)

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(type='CrossDomainSampler'),
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
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=0.1),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0.1),
    dict(type='AdaptationLR', by_epoch=False, warmup=0.1),
]
default_hooks = dict(adaptation=dict(type='AdaptationHook'))
# What adapts has no gradient in the source stage.
find_unused_parameters = True
