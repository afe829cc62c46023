# The source alone, for as many steps as the adaptation takes: what the other baselines
# of this folder change one line of.
_base_ = [
    '../../_base_/datasets/synthpedes_64x32.py',
    '../../_base_/two_stages_tiny.py',
]
model = dict(type='AdaptedDualEncoder')
train_dataloader = dict(
    dataset=dict(source=_base_.street_train, target=_base_.mall_train),
)
test_dataloader = dict(
    mall=_base_.mall_test,
    street=_base_.street_test,
)
