# Aligned covariances (Sun and Saenko, Deep CORAL, ECCV Workshops 2016).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='CORALHead',
        loss_weight=dict(start=0.0, end=10.0, length=0.25),
    ),
)
