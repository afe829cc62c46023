_base_ = './gckd/gckd_street2mall.py'
