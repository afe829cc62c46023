_base_ = './gckd/gckd_street2campus.py'
