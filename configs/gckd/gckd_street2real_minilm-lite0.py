# The synthetic domain `street` with its labels, your own images without: a laptop, no
# dataset to ask for (docs/real_images.md).
_base_ = [
    '../_base_/datasets/street_and_real_192x64.py',
    '../_base_/gckd_minilm_lite0.py',
]
model = dict(memory_size=5000)
train_dataloader = dict(
    dataset=dict(source=_base_.street_train, target=_base_.real_target),
)
test_dataloader = dict(
    real=_base_.real_test,
    street=_base_.street_test,
)
