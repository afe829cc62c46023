# The source stage of gckd_cuhk2icfg.py alone.
_base_ = [
    '../_base_/datasets/person_text_384x128.py',
    '../_base_/models/dual_encoder_clip_vit_b16.py',
    '../_base_/schedules/clip_60e_cuhk_pedes.py',
    '../_base_/large_runtime.py',
]
train_dataloader = dict(dataset=_base_.cuhk_pedes_train)
test_dataloader = dict(
    icfg_pedes=_base_.icfg_pedes_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
