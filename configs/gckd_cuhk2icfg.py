# CUHK-PEDES with its labels, ICFG-PEDES without: 384 x 128 pixels, CLIP ViT-B/16.
_base_ = [
    './_base_/datasets/person_text_384x128.py',
    './_base_/models/gckd_clip_vit_b16.py',
    './_base_/schedules/clip_60e_cuhk_pedes_then_adapted.py',
    './_base_/large_adaptation_runtime.py',
]
model = dict(
    memory_size=35_000,  # ICFG-PEDES: 34,674 images with a caption each
)
train_dataloader = dict(
    dataset=dict(source=_base_.cuhk_pedes_train, target=_base_.icfg_pedes_target),
)
test_dataloader = dict(
    icfg_pedes=_base_.icfg_pedes_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
