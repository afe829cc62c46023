# Target-supervised, with the source: trained on the labels of both domains.
_base_ = './source_only_campus2mall.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatPersonText',
        datasets=[_base_.campus_train, _base_.mall_train],
    ),
)
