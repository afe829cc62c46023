_base_ = ['./_base_/datasets/synthpedes_64x32.py', './_base_/gckd_tiny.py']
train_dataloader = dict(
    dataset=dict(source=_base_.mall_train, target=_base_.street_train),
)
test_dataloader = dict(
    street=_base_.street_test,
    mall=_base_.mall_test,
)
