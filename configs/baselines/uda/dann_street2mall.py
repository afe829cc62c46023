# Domain-adversarial training (Ganin et al., JMLR 2016).
_base_ = './continued_street2mall.py'
model = dict(
    adaptation=dict(
        type='DomainAdversarialHead',
        embedding_size=128,
        reversal=dict(start=0.0, end=0.3, length=0.25),
    ),
)
