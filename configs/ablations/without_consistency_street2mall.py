# No neighbours within a modality.
_base_ = '../gckd/gckd_street2mall.py'
model = dict(consistency=None)
