# CLIP ViT-B/16, fine-tuned as the field does it, after IRRA (CVPR 2023): Adam at 1e-5, 64
# pairs a batch, the first five epochs with a rising learning rate.
_base_ = ['./models/dual_encoder_clip_vit_b16.py', './large_runtime.py']

source_epochs = 60  # how many iterations an epoch has stands in the table of domains
test_cfg = dict(type='RetrievalTestLoop')
test_evaluator = dict(type='PersonRetrievalMetric')

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    sampler=dict(type='PairedSampler'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-5, weight_decay=4e-5),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
)
