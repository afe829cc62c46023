# World 0 of SynthPedes at 64 x 32 pixels (height x width), in the schemas of the three
# official datasets: python tools/make_synthpedes.py
# An experiment picks: train_dataloader = dict(dataset=_base_.street_train), …
train_pipeline = [
    dict(type='LoadPersonImage'),
    dict(type='Resize', scale=(32, 64), interpolation='area'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmpretrain.RandomCrop', crop_size=(64, 32), padding=4, pad_val=128),
    dict(type='PackPersonText'),
]
image_pipeline = [
    dict(type='LoadPersonImage'),
    dict(type='Resize', scale=(32, 64), interpolation='area'),
    dict(type='PackPersonText'),
]
caption_pipeline = [dict(type='PackPersonText')]

_street = dict(type='CUHKPEDES', data_root='data/synthpedes/world0/street')
_mall = dict(type='RSTPReid', data_root='data/synthpedes/world0/mall')
_campus = dict(type='ICFGPEDES', data_root='data/synthpedes/world0/campus')
_web = dict(type='CUHKPEDES', data_root='data/synthpedes/web')
# what --source and --target choose from
domains = dict(
    street=dict(dataset=_street),
    mall=dict(dataset=_mall),
    campus=dict(dataset=_campus),
)

_train = dict(split='train', view='pairs', pipeline=train_pipeline)
street_train = dict(**_street, **_train)
mall_train = dict(**_mall, **_train)
campus_train = dict(**_campus, **_train)
web_train = dict(**_web, **_train)

_loader = dict(
    batch_size=128,
    num_workers=2,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
_images = dict(view='images', pipeline=image_pipeline)
_captions = dict(view='captions', pipeline=caption_pipeline)
street_val = dict(
    gallery=dict(**_loader, dataset=dict(**_street, split='val', **_images)),
    query=dict(**_loader, dataset=dict(**_street, split='val', **_captions)),
)
mall_val = dict(
    gallery=dict(**_loader, dataset=dict(**_mall, split='val', **_images)),
    query=dict(**_loader, dataset=dict(**_mall, split='val', **_captions)),
)
web_val = dict(
    gallery=dict(**_loader, dataset=dict(**_web, split='val', **_images)),
    query=dict(**_loader, dataset=dict(**_web, split='val', **_captions)),
)
street_test = dict(
    gallery=dict(**_loader, dataset=dict(**_street, split='test', **_images)),
    query=dict(**_loader, dataset=dict(**_street, split='test', **_captions)),
)
mall_test = dict(
    gallery=dict(**_loader, dataset=dict(**_mall, split='test', **_images)),
    query=dict(**_loader, dataset=dict(**_mall, split='test', **_captions)),
)
campus_test = dict(
    gallery=dict(**_loader, dataset=dict(**_campus, split='test', **_images)),
    query=dict(**_loader, dataset=dict(**_campus, split='test', **_captions)),
)
