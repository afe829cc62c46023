# The graph alone: no soft matching of captions and images.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(labels=None, distill=None)
