# Plain momentum distillation, as in ALBEF (Li et al., NeurIPS 2021): the teacher's soft
# labels as they are, without balance, graph or neighbours.
_base_ = '../../gckd_street2mall.py'
model = dict(graph=None, consistency=None, distill=dict(assignment=None))
