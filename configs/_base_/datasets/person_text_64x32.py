# The three official datasets at 64 x 32 pixels (height x width).
# An experiment picks: train_dataloader = dict(dataset=_base_.cuhk_pedes_train), …
train_pipeline = [
    dict(type='LoadPersonImage'),
    dict(type='Resize', scale=(32, 64)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmpretrain.RandomCrop', crop_size=(64, 32), padding=4, pad_val=128),
    dict(type='PackPersonText'),
]
image_pipeline = [
    dict(type='LoadPersonImage'),
    dict(type='Resize', scale=(32, 64)),
    dict(type='PackPersonText'),
]
caption_pipeline = [dict(type='PackPersonText')]

_cuhk_pedes = dict(type='CUHKPEDES', data_root='data/cuhk_pedes')
_icfg_pedes = dict(type='ICFGPEDES', data_root='data/icfg_pedes')
_rstpreid = dict(type='RSTPReid', data_root='data/rstpreid')
# what --source and --target choose from
domains = dict(
    cuhk=dict(dataset=_cuhk_pedes, test_set='cuhk_pedes'),
    icfg=dict(dataset=_icfg_pedes, test_set='icfg_pedes'),
    rstp=dict(dataset=_rstpreid, test_set='rstpreid'),
)

_train = dict(split='train', view='pairs', pipeline=train_pipeline)
cuhk_pedes_train = dict(**_cuhk_pedes, **_train)
icfg_pedes_train = dict(**_icfg_pedes, **_train)
rstpreid_train = dict(**_rstpreid, **_train)

_loader = dict(
    batch_size=128,
    num_workers=2,
    collate_fn=dict(type='gckd_mm.collate_person_text'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
_images = dict(view='images', pipeline=image_pipeline)
_captions = dict(view='captions', pipeline=caption_pipeline)
cuhk_pedes_val = dict(
    gallery=dict(**_loader, dataset=dict(**_cuhk_pedes, split='val', **_images)),
    query=dict(**_loader, dataset=dict(**_cuhk_pedes, split='val', **_captions)),
)
cuhk_pedes_test = dict(
    gallery=dict(**_loader, dataset=dict(**_cuhk_pedes, split='test', **_images)),
    query=dict(**_loader, dataset=dict(**_cuhk_pedes, split='test', **_captions)),
)
icfg_pedes_test = dict(
    gallery=dict(**_loader, dataset=dict(**_icfg_pedes, split='test', **_images)),
    query=dict(**_loader, dataset=dict(**_icfg_pedes, split='test', **_captions)),
)
rstpreid_val = dict(
    gallery=dict(**_loader, dataset=dict(**_rstpreid, split='val', **_images)),
    query=dict(**_loader, dataset=dict(**_rstpreid, split='val', **_captions)),
)
rstpreid_test = dict(
    gallery=dict(**_loader, dataset=dict(**_rstpreid, split='test', **_images)),
    query=dict(**_loader, dataset=dict(**_rstpreid, split='test', **_captions)),
)
