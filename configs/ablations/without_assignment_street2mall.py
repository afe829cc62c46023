# The teacher's similarities as they are: hubs included.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(labels=dict(assignment=None))
