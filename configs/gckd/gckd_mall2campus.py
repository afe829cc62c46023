_base_ = './gckd_street2mall.py'
train_dataloader = dict(
    dataset=dict(source=_base_.mall_train, target=_base_.campus_train),
)
test_dataloader = dict(
    _delete_=True,
    campus=_base_.campus_test,
    mall=_base_.mall_test,
)
