# GCKD from street, with its labels, to mall, without: the tiny model on SynthPedes. Other
# directions: gckd_<source>2<target>.py, or --source and --target of the tools.
_base_ = [
    '../_base_/datasets/synthpedes_64x32.py',
    '../_base_/two_stages_tiny.py',
    '../_base_/gckd.py',
]
model = _base_.pop('gckd')
model.embedding_size = 128
model.memory_size = 5000  # all of a target's train set: 2,400 images, 4,800 captions
train_dataloader = dict(
    dataset=dict(source=_base_.street_train, target=_base_.mall_train),
)
test_dataloader = dict(
    mall=_base_.mall_test,
    street=_base_.street_test,
)
