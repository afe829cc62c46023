# RSTPReid with its labels, CUHK-PEDES without.
_base_ = './gckd_cuhk2rstp.py'
model = dict(memory_size=_base_.domains.cuhk.memory_size)
train_cfg = dict(source_iters=_base_.source_epochs * _base_.domains.rstp.epoch)
train_dataloader = dict(
    dataset=dict(source=_base_.rstpreid_train, target=_base_.cuhk_pedes_target),
)
test_dataloader = dict(
    _delete_=True,
    cuhk_pedes=_base_.cuhk_pedes_test,
    rstpreid=_base_.rstpreid_test,
)
