_base_ = './gckd_street2mall.py'
train_dataloader = dict(
    dataset=dict(source=_base_.mall_train, target=_base_.street_train),
)
test_dataloader = dict(
    _delete_=True,
    street=_base_.street_test,
    mall=_base_.mall_test,
)
