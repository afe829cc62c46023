# Multi-kernel maximum mean discrepancy (Long et al., DAN, ICML 2015).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='MMDHead',
        loss_weight=dict(start=0.0, end=50.0, length=0.25),
    ),
)
