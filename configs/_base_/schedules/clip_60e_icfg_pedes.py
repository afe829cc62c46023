# 60 epochs of ICFG-PEDES, the first five of them with a rising learning rate.
_base_ = './clip_finetuning.py'
_epoch = 542  # 34,674 pairs in batches of 64
train_cfg = dict(type='IterBasedTrainLoop', max_iters=60 * _epoch)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5 * _epoch),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5 * _epoch, end=60 * _epoch),
]
