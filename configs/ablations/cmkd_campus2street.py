# The distillation alone: no graph, no neighbours within a modality.
_base_ = '../gckd_campus2street.py'
model = dict(graph=None, consistency=None, labels=dict(propagation=None))
