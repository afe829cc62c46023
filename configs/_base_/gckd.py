# The method, at the scale of the tiny model. A config takes it over as its model, and sets
# what depends on the scale:
#     model = _base_.pop('gckd')  # so that each setting stands once in what results
#     model.embedding_size = 128
gckd = dict(
    type='GCKD',
    teacher_momentum=0.97,
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
    # ramps over the first quarter of the adaptation
    loss_weights=dict(
        distill=dict(start=0.0, end=8.0, length=0.25),
        consistency=dict(start=0.0, end=0.5, length=0.25),
    ),
)
