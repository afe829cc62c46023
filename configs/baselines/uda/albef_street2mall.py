# Plain momentum distillation, as in ALBEF (Li et al., NeurIPS 2021): the teacher's soft
# labels as they are, without balance, graph or neighbours. They bear little weight.
_base_ = '../../gckd/gckd_street2mall.py'
model = dict(
    graph=None,
    consistency=None,
    labels=dict(assignment=None, propagation=None),
    loss_weights=dict(distill=dict(start=0.0, end=0.3, length=0.25)),
)
