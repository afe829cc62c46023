# Propagated labels (after Hu et al., ReCLIP, WACV 2024).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='LabelPropagationHead',
        embedding_size=128,
        memory_size=5000,
        mutual=False,
        loss_weight=dict(start=0.0, end=4.0, begin=40 / 300, length=35 / 300),
    ),
)
