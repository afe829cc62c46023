_base_ = './gckd/gckd_cuhk2rstp_minilm-lite0.py'
