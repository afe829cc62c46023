# GCKD on the tiny model, from SynthCLIP-tiny: 400 iterations on the source alone, which
# are those of the source-only baseline, then 300 of adaptation to the target.
_base_ = [
    './models/dual_encoder_tiny.py',
    './schedules/source_400.py',
    './synthclip_runtime.py',
]
_source_iters = _base_.train_cfg.max_iters
_adapt_iters = 300
_batch_size = 64
_ramp = _adapt_iters // 4

model = dict(
    type='GCKD',
    embedding_size=128,
    memory_size=5000,  # all of a target's train set: 2,400 images, 4,800 captions
    source_iters=_source_iters,
    teacher_momentum=0.97,
    graph=dict(
        type='MemoryGraph',
        neck=dict(type='GraphPropagationNeck', layer='parameter_free', num_layers=1),
        k=dict(near=6, cross_domain=3),
    ),
    distill=dict(
        type='MomentumDistillHead',
        candidates=64,
        assignment=dict(method='sinkhorn', epsilon=0.06, iterations=4),
        teacher_temperature=0.02,
        student_temperature=0.06,
        loss_weight=dict(start=0.0, end=1.0, length=_ramp),
    ),
    consistency=dict(
        type='NeighbourConsistencyHead',
        loss_weight=dict(start=0.0, end=0.5, length=_ramp),
    ),
)
train_dataloader = dict(
    batch_size=_batch_size,
    dataset=dict(type='CrossDomainDataset'),
    sampler=dict(
        type='CrossDomainSampler', source_iters=_source_iters, batch_size=_batch_size
    ),
)
train_cfg = dict(max_iters=_source_iters + _adapt_iters)
param_scheduler = [
    *_base_.param_scheduler,
    dict(
        type='AdaptationLR',
        by_epoch=False,
        begin=_source_iters,
        warmup=30,
    ),
]
default_hooks = dict(
    adaptation=dict(type='AdaptationHook'),
    finite_loss=dict(type='FiniteLossHook'),
)
# A graph that learns, and matching, have no gradient in the source stage.
find_unused_parameters = True
