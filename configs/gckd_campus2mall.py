_base_ = './gckd/gckd_campus2mall.py'
