_base_ = './gckd/gckd_mall2campus.py'
