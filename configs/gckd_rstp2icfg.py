_base_ = './gckd/gckd_rstp2icfg.py'
