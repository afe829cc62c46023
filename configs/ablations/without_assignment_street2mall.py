# The teacher's similarities as they are: hubs included.
_base_ = '../gckd_street2mall.py'
model = dict(distill=dict(assignment=None))
