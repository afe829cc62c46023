# Contrast to clusters in a hybrid memory (after Ge et al., SpCL, NeurIPS 2020).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='ClusterContrastHead',
        embedding_size=128,
        memory_size=5000,
        # four images of a person in these worlds
        k1=8,
        k2=3,
        min_samples=2,
        loss_weight=dict(start=0.0, end=8.0, length=0.25),
    ),
)
