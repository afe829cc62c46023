_base_ = './gckd/gckd_cuhk2icfg.py'
