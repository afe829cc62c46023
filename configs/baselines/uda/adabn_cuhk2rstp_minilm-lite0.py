# The source alone, for as many steps as gckd_cuhk2rstp_minilm-lite0.py takes; then the
# target's statistics in EfficientNet-lite0's batch normalisations (Li et al., AdaBN, 2016).
_base_ = [
    '../../_base_/datasets/person_text_384x128.py',
    '../../_base_/two_stages_minilm_lite0.py',
]
model = dict(type='AdaptedDualEncoder')
train_dataloader = dict(
    dataset=dict(source=_base_.cuhk_pedes_train, target=_base_.rstpreid_target),
)
test_dataloader = dict(
    rstpreid=_base_.rstpreid_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
custom_hooks = [
    dict(
        type='AdaBNHook',
        target={**_base_.rstpreid_target, 'pipeline': _base_.image_pipeline},
    ),
]
