# The source stage of gckd_rstp2cuhk.py alone.
_base_ = [
    '../_base_/datasets/person_text_384x128.py',
    '../_base_/models/dual_encoder_clip_vit_b16.py',
    '../_base_/schedules/clip_60e_rstpreid.py',
    '../_base_/large_runtime.py',
]
train_dataloader = dict(dataset=_base_.rstpreid_train)
test_dataloader = dict(
    cuhk_pedes=_base_.cuhk_pedes_test,
    rstpreid=_base_.rstpreid_test,
)
