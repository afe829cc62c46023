# Synthetic pedestrians with labels, and real images in RSTPReid's schema without, both at
# 192 x 64 pixels (height x width).
_load = [
    dict(type='LoadPersonImage'),
    dict(type='Resize', scale=(64, 192)),
]
train_pipeline = [
    *_load,
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmpretrain.RandomCrop', crop_size=(192, 64), padding=8, pad_val=128),
    dict(type='PackPersonText'),
]
image_pipeline = [*_load, dict(type='PackPersonText')]
caption_pipeline = [dict(type='PackPersonText')]

_street = dict(type='CUHKPEDES', data_root='data/synthpedes/world0/street')
_real = dict(type='RSTPReid', data_root='data/real')

street_train = dict(**_street, split='train', view='pairs', pipeline=train_pipeline)
real_target = dict(**_real, split='train', pipeline=train_pipeline)

_loader = dict(
    batch_size=128,
    num_workers=2,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
_images = dict(split='test', view='images', pipeline=image_pipeline)
_captions = dict(split='test', view='captions', pipeline=caption_pipeline)
street_test = dict(
    gallery=dict(**_loader, dataset=dict(**_street, **_images)),
    query=dict(**_loader, dataset=dict(**_street, **_captions)),
)
real_test = dict(
    gallery=dict(**_loader, dataset=dict(**_real, **_images)),
    query=dict(**_loader, dataset=dict(**_real, **_captions)),
)
