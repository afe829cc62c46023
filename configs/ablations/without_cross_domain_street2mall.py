# The graph has no edges from the source.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(graph=dict(k=dict(cross_domain=0)))
