# Two learned layers instead of smoothing without parameters.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(
    type='GCKDWithLearnedGraph', graph=dict(neck=dict(layer='SAGEConv', num_layers=2))
)
