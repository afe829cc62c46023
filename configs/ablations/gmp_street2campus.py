# The graph alone: no soft matching of captions and images.
_base_ = '../gckd_street2campus.py'
model = dict(labels=None, distill=None)
