# GCKD on CLIP ViT-B/16. The temperatures and epsilon are those of the tiny model times
# 0.4, as the source head's is; the teacher's half-life is a third of a pass over RSTPReid.
# None of it has been tuned on the official datasets.
_base_ = './dual_encoder_clip_vit_b16.py'

model = dict(
    type='GCKD',
    embedding_size=512,
    teacher_momentum=0.996,
    graph=dict(
        type='MemoryGraph',
        neck=dict(type='GraphPropagationNeck', layer='parameter_free', num_layers=1),
        k=dict(near=6, cross_domain=3),
    ),
    labels=dict(
        type='PseudoLabels',
        candidates=32,
        assignment=dict(epsilon=0.024, iterations=4),
        temperature=0.008,
        propagation=dict(alpha=0.5, k=6),
    ),
    distill=dict(type='MomentumDistillHead', temperature=0.024),
    consistency=dict(type='NeighbourConsistencyHead'),
    loss_weights=dict(
        distill=dict(start=0.0, end=8.0, length=0.25),
        consistency=dict(start=0.0, end=0.5, length=0.25),
    ),
)
