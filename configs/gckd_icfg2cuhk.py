_base_ = './gckd/gckd_icfg2cuhk.py'
