# The source stage of gckd_cuhk2rstp.py alone.
_base_ = [
    '../_base_/datasets/person_text_384x128.py',
    '../_base_/source_clip_vit_b16.py',
]
_epoch = _base_.domains.cuhk.epoch
_iters = _base_.source_epochs * _epoch
train_cfg = dict(type='IterBasedTrainLoop', max_iters=_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5 * _epoch),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5 * _epoch, end=_iters),
]
train_dataloader = dict(dataset=_base_.cuhk_pedes_train)
test_dataloader = dict(
    rstpreid=_base_.rstpreid_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
