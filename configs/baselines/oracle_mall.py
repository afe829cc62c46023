# Target-supervised, without a source: trained on the labels of the domain it is
# tested on.
_base_ = [
    '../_base_/datasets/synthpedes_64x32.py',
    '../_base_/source_tiny.py',
]
train_dataloader = dict(dataset=_base_.mall_train)
test_dataloader = dict(mall=_base_.mall_test)
