# The three official datasets at 384 x 128 pixels (height x width), augmented as the field
# does. An experiment picks: train_dataloader = dict(dataset=_base_.cuhk_pedes_train), …
_load = [
    dict(type='LoadPersonImage'),
    dict(type='Resize', scale=(128, 384)),
]
_flip_and_shift = [
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmpretrain.RandomCrop', crop_size=(384, 128), padding=10),
]
train_pipeline = [
    *_load,
    *_flip_and_shift,
    dict(
        type='mmpretrain.RandomErasing',
        erase_prob=0.5,
        max_area_ratio=0.4,
        fill_color=(123, 117, 104),  # CLIP's mean
    ),
    dict(type='RandomWordMask', prob=0.15),
    dict(type='PackPersonText'),
]
# What the teacher labels is left whole.
target_pipeline = [*_load, *_flip_and_shift, dict(type='PackPersonText')]
image_pipeline = [*_load, dict(type='PackPersonText')]
caption_pipeline = [dict(type='PackPersonText')]

_cuhk_pedes = dict(type='CUHKPEDES', data_root='data/cuhk_pedes')
_icfg_pedes = dict(type='ICFGPEDES', data_root='data/icfg_pedes')
_rstpreid = dict(type='RSTPReid', data_root='data/rstpreid')
# What --source and --target choose from. An epoch is counted in batches of 64 pairs; a
# memory holds all captions of a train set.
domains = dict(
    cuhk=dict(  # 68,126 captions of 34,054 images
        dataset=_cuhk_pedes, test_set='cuhk_pedes', epoch=1065, memory_size=69_000
    ),
    icfg=dict(  # 34,674 captions of 34,674 images
        dataset=_icfg_pedes, test_set='icfg_pedes', epoch=542, memory_size=35_000
    ),
    rstp=dict(  # 37,010 captions of 18,505 images
        dataset=_rstpreid, test_set='rstpreid', epoch=579, memory_size=38_000
    ),
)

_train = dict(split='train', view='pairs', pipeline=train_pipeline)
cuhk_pedes_train = dict(**_cuhk_pedes, **_train)
icfg_pedes_train = dict(**_icfg_pedes, **_train)
rstpreid_train = dict(**_rstpreid, **_train)
_target = dict(split='train', pipeline=target_pipeline)
cuhk_pedes_target = dict(**_cuhk_pedes, **_target)
icfg_pedes_target = dict(**_icfg_pedes, **_target)
rstpreid_target = dict(**_rstpreid, **_target)

_loader = dict(
    batch_size=128,
    num_workers=4,
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
