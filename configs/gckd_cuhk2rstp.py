_base_ = './gckd/gckd_cuhk2rstp.py'
