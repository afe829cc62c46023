# ICFG-PEDES with its labels, RSTPReid without.
_base_ = './gckd_cuhk2rstp.py'
model = dict(memory_size=_base_.domains.rstp.memory_size)
train_cfg = dict(source_iters=_base_.source_epochs * _base_.domains.icfg.epoch)
train_dataloader = dict(
    dataset=dict(source=_base_.icfg_pedes_train, target=_base_.rstpreid_target),
)
test_dataloader = dict(
    _delete_=True,
    rstpreid=_base_.rstpreid_test,
    icfg_pedes=_base_.icfg_pedes_test,
)
