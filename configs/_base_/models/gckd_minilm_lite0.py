# GCKD on EfficientNet-lite0 and MiniLM, with the settings of the tiny model.
_base_ = './dual_encoder_minilm_lite0.py'

model = dict(
    type='GCKD',
    embedding_size=384,
    teacher_momentum=0.985,
    graph=dict(
        type='MemoryGraph',
        neck=dict(type='GraphPropagationNeck', layer='parameter_free', num_layers=1),
        k=dict(near=6, cross_domain=3),
    ),
    labels=dict(
        type='PseudoLabels',
        candidates=32,
        assignment=dict(epsilon=0.06, iterations=4),
        temperature=0.02,
        propagation=dict(alpha=0.5, k=6),
    ),
    distill=dict(type='MomentumDistillHead', temperature=0.06),
    consistency=dict(type='NeighbourConsistencyHead'),
    loss_weights=dict(
        distill=dict(start=0.0, end=8.0, length=0.25),
        consistency=dict(start=0.0, end=0.5, length=0.25),
    ),
)
