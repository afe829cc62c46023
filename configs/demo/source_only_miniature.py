# Source-only transfer between two of the datasets that tests/miniature.py draws.
_base_ = '../baselines/source_only_tiny_cuhk2rstp.py'

_source = dict(dataset=dict(data_root='data/miniature/cuhk_pedes'))
_target = dict(dataset=dict(data_root='data/miniature/rstpreid'))
train_dataloader = _source
test_dataloader = dict(
    rstpreid=dict(gallery=_target, query=_target),
    cuhk_pedes=dict(gallery=_source, query=_source),
)
train_cfg = dict(max_iters=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=200),
]
