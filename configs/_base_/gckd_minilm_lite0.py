# GCKD on EfficientNet-lite0 and MiniLM, with the temperatures of the tiny model.
_base_ = ['./two_stages_minilm_lite0.py', './gckd.py']

model = _base_.pop('gckd')
model.embedding_size = 384
model.teacher_momentum = 0.985
