_base_ = './gckd_street2mall.py'
train_dataloader = dict(
    dataset=dict(source=_base_.street_train, target=_base_.campus_train),
)
test_dataloader = dict(
    _delete_=True,
    campus=_base_.campus_test,
    street=_base_.street_test,
)
