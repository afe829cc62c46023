# SynthCLIP-tiny: pretrained on the web of SynthPedes, and shipped with the package as
# gckd_mm://synthclip_tiny_web. To make it again: make pretrain
_base_ = [
    '../_base_/datasets/synthpedes_64x32.py',
    '../_base_/models/dual_encoder_tiny.py',
    '../_base_/schedules/adamw_600.py',
    '../_base_/default_runtime.py',
]
model = dict(heads=dict(sdm=None, info_nce=dict(type='InfoNCEHead', temperature=0.07)))
train_dataloader = dict(batch_size=128, dataset=_base_.web_train)
test_dataloader = dict(
    web_val=_base_.web_val,
    street=_base_.street_test,
    mall=_base_.mall_test,
    campus=_base_.campus_test,
)
train_cfg = dict(max_iters=1200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=1200),
]
