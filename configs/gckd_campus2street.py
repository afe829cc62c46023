_base_ = './gckd/gckd_campus2street.py'
