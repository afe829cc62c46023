_base_ = ['./_base_/datasets/synthpedes_64x32.py', './_base_/gckd_tiny.py']
train_dataloader = dict(
    dataset=dict(source=_base_.street_train, target=_base_.campus_train),
)
test_dataloader = dict(
    campus=_base_.campus_test,
    street=_base_.street_test,
)
