# The distillation alone: no graph, no neighbours within a modality.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(graph=None, consistency=None, labels=dict(propagation=None))
