_base_ = [
    '../_base_/datasets/person_text_64x32.py',
    '../_base_/models/dual_encoder_tiny.py',
    '../_base_/schedules/adamw_600.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(dataset=_base_.icfg_pedes_train)
test_dataloader = dict(
    cuhk_pedes=_base_.cuhk_pedes_test,
    icfg_pedes=_base_.icfg_pedes_test,
)
