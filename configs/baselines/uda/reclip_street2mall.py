# Propagated labels (after Hu et al., ReCLIP, WACV 2024).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='LabelPropagationHead',
        size=5000,
        dim=128,
        loss_weight=dict(start=0.0, end=1.0, begin=40, length=35),
    ),
)
