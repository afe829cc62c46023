# CUHK-PEDES with its labels, ICFG-PEDES without.
_base_ = './gckd_cuhk2rstp.py'
model = dict(memory_size=_base_.domains.icfg.memory_size)
train_cfg = dict(source_iters=_base_.source_epochs * _base_.domains.cuhk.epoch)
train_dataloader = dict(
    dataset=dict(source=_base_.cuhk_pedes_train, target=_base_.icfg_pedes_target),
)
test_dataloader = dict(
    _delete_=True,
    icfg_pedes=_base_.icfg_pedes_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
