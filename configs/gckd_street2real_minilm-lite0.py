_base_ = './gckd/gckd_street2real_minilm-lite0.py'
