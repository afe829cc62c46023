# CUHK-PEDES with its labels, RSTPReid without, for a laptop: EfficientNet-lite0 and MiniLM.
_base_ = [
    '../_base_/datasets/person_text_384x128.py',
    '../_base_/gckd_minilm_lite0.py',
]
model = dict(memory_size=_base_.domains.rstp.memory_size)
train_dataloader = dict(
    dataset=dict(source=_base_.cuhk_pedes_train, target=_base_.rstpreid_target),
)
test_dataloader = dict(
    rstpreid=_base_.rstpreid_test,
    cuhk_pedes=_base_.cuhk_pedes_test,
)
