# CUHK-PEDES with its labels, RSTPReid without: 384 x 128 pixels, CLIP ViT-B/16. 60 epochs
# of the source, then 6,000 iterations of adaptation: 5 to 11 passes of the target.
_base_ = [
    '../_base_/datasets/person_text_384x128.py',
    '../_base_/source_clip_vit_b16.py',
    '../_base_/gckd.py',
]
model = _base_.pop('gckd')
model.embedding_size = 512
model.memory_size = _base_.domains.rstp.memory_size
# The teacher's half-life is a third of a pass over RSTPReid. The temperatures and epsilon
# are those of the tiny model times 0.4, as the source head's is. None of it has been tuned
# on the official datasets.
model.teacher_momentum = 0.996
model.labels.assignment.epsilon = 0.024
model.labels.temperature = 0.008
model.distill.temperature = 0.024
train_cfg = dict(
    type='TwoStageTrainLoop',
    source_iters=_base_.source_epochs * _base_.domains.cuhk.epoch,
    adapt_iters=6000,
)
# Bounds are fractions of the source stage; the adaptation has a schedule of its own.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5 / 60),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5 / 60),
    dict(type='AdaptationLR', by_epoch=False, warmup=0.1),
]
train_dataloader = dict(
    dataset=dict(
        type='CrossDomainDataset',
        source=_base_.cuhk_pedes_train,
        target=_base_.rstpreid_target,
    ),
    sampler=dict(type='CrossDomainSampler'),
)
test_dataloader = dict(
    rstpreid=_base_.rstpreid_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
default_hooks = dict(adaptation=dict(type='AdaptationHook'))
# What adapts has no gradient in the source stage.
find_unused_parameters = True
