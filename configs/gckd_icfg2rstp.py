_base_ = './gckd/gckd_icfg2rstp.py'
