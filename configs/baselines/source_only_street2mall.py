_base_ = [
    '../_base_/datasets/synthpedes_64x32.py',
    '../_base_/source_tiny.py',
]
train_dataloader = dict(dataset=_base_.street_train)
test_dataloader = dict(
    mall=_base_.mall_test,
    street=_base_.street_test,
)
