# The graph hears nothing of the source.
_base_ = '../gckd_street2mall.py'
model = dict(graph=dict(k=dict(cross_domain=0)))
