# ICFG-PEDES with its labels, CUHK-PEDES without: 384 x 128 pixels, CLIP ViT-B/16.
_base_ = [
    './_base_/datasets/person_text_384x128.py',
    './_base_/models/gckd_clip_vit_b16.py',
    './_base_/schedules/clip_60e_icfg_pedes_then_adapted.py',
    './_base_/large_adaptation_runtime.py',
]
model = dict(
    memory_size=69_000,  # CUHK-PEDES: 68,126 captions of 34,054 images
)
train_dataloader = dict(
    dataset=dict(source=_base_.icfg_pedes_train, target=_base_.cuhk_pedes_target),
)
test_dataloader = dict(
    cuhk_pedes=_base_.cuhk_pedes_test,
    icfg_pedes=_base_.icfg_pedes_test,
)
