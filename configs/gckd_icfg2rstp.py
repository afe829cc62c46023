# ICFG-PEDES with its labels, RSTPReid without: 384 x 128 pixels, CLIP ViT-B/16.
_base_ = [
    './_base_/datasets/person_text_384x128.py',
    './_base_/models/gckd_clip_vit_b16.py',
    './_base_/schedules/clip_60e_icfg_pedes_then_adapted.py',
    './_base_/large_adaptation_runtime.py',
]
model = dict(
    memory_size=38_000,  # RSTPReid: 37,010 captions of 18,505 images
)
train_dataloader = dict(
    dataset=dict(source=_base_.icfg_pedes_train, target=_base_.rstpreid_target),
)
test_dataloader = dict(
    rstpreid=_base_.rstpreid_test,
    icfg_pedes=_base_.icfg_pedes_test,
)
