# Target-supervised, without a source: trained on the labels of the domain it is
# tested on.
_base_ = [
    '../_base_/datasets/synthpedes_64x32.py',
    '../_base_/models/dual_encoder_tiny.py',
    '../_base_/schedules/source_400.py',
    '../_base_/synthclip_runtime.py',
]
train_dataloader = dict(dataset=_base_.street_train)
test_dataloader = dict(street=_base_.street_test)
