_base_ = './gckd_street2mall.py'
train_dataloader = dict(
    dataset=dict(source=_base_.campus_train, target=_base_.mall_train),
)
test_dataloader = dict(
    _delete_=True,
    mall=_base_.mall_test,
    campus=_base_.campus_test,
)
