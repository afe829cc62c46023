# Captions as prototypes (after Tanwisuth et al., POUF, ICML 2023).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='POUFHead',
        embedding_size=128,
        memory_size=5000,
        temperature=0.05,  # the source head's
        loss_weight=dict(start=0.0, end=8.0, length=0.25),
    ),
)
