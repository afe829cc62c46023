_base_ = './gckd/gckd_rstp2cuhk.py'
