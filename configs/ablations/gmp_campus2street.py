# The graph alone: no soft matching of captions and images.
_base_ = '../gckd_campus2street.py'
model = dict(labels=None, distill=None)
