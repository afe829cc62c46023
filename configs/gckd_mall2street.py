_base_ = './gckd/gckd_mall2street.py'
